// "/" goes to the search box; n and p go to the next and the previous error.
"use strict";
let position = -1;

document.addEventListener("keydown", (event) => {
  if (event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") {
    event.preventDefault();
    document.querySelector("input").select();
  }
  if (event.key === "n" || event.key === "p") {
    const errors = document.querySelectorAll(".line.bad");
    if (!errors.length) return;
    position = (position + (event.key === "n" ? 1 : -1) + errors.length) % errors.length;
    const summary = errors[position].querySelector("summary");
    summary.focus();
    summary.scrollIntoView({ block: "center" });
  }
});
