"""How a story is put into words: titles of spans, durations, the verdict in one sentence. For the terminal and the page alike."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from chegou_otel.local.jobs import RETRIED, Job
from chegou_otel.local.story import Lane, Row, Story, is_redis, is_sql

if TYPE_CHECKING:
    from chegou_otel.local.records import Log, Span

TIMES: Final = "\u00d7"
MARKS: Final = {"ok": "✔", "recovered": "✔", "running": "…", "failed": "✘"}
# What a terminal would obey, and what would turn a line of text around.
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def one_line(value: Any, width: int = 0) -> str:
    """Text that came from outside, safe for a terminal: no control characters, no line breaks, not longer than `width`."""
    text = _UNPRINTABLE.sub(lambda match: " " if match[0] in "\n\r\t" else f"\\x{ord(match[0]):02x}", str(value)).strip()
    text = re.sub(r" {2,}", " ", text)
    return f"{text[: width - 1]}…" if width and len(text) > width else text


def duration(seconds: float) -> str:
    """Three digits are enough."""
    if seconds < 0.001:  # noqa: PLR2004 - below a millisecond
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.{1 if seconds < 0.1 else 0}f} ms"  # noqa: PLR2004
    if seconds < 60:  # noqa: PLR2004
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def moment(nanoseconds: int) -> str:
    """A point in time, in UTC."""
    try:
        return datetime.fromtimestamp(nanoseconds / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    except (OverflowError, ValueError, OSError):
        return f"{nanoseconds} ns"


def title(row: Row) -> str:
    """What a line of the waterfall says."""
    text = span_title(row.span)
    return f"{len(row.spans)}{TIMES} {text}" if len(row.spans) > 1 else text


def span_title(span: Span) -> str:
    """The statement, the address, the job: more telling than the name, where there is more."""
    if is_sql(span) or is_redis(span):
        return one_line(span.get("db.query.text", "db.statement") or span.name)
    code = span.get("http.response.status_code", "http.status_code")
    if span.kind == "CLIENT" and (method := span.get("http.request.method", "http.method")):
        return _with_code(f"{one_line(method)} {one_line(span.get('url.full', 'http.url') or span.get('server.address'))}", code)
    if span.kind == "SERVER":
        return _with_code(one_line(span.name), code)
    if span.kind in ("CONSUMER", "PRODUCER"):
        return _job_title(span)
    return one_line(span.name)


def _with_code(text: str, code: Any) -> str:
    return f"{text} → {one_line(code)}" if code else text


def _job_title(span: Span) -> str:
    text = one_line(span.name)
    if function := span.get("rq.job.function"):
        text += f" · {one_line(str(function).rpartition('.')[2])}"
    if attempt := span.get("rq.job.attempt"):
        most = span.get("rq.job.max_attempts")
        text += f" · attempt {one_line(attempt)}{f'/{one_line(most)}' if most else ''}"
    return _with_code(text, str(span.get("rq.job.status")).replace("_", " "))


def category(span: Span) -> str:
    """What kind of work it is: a word for a colour."""
    if is_sql(span):
        return "sql"
    if is_redis(span):
        return "redis"
    if span.kind == "CLIENT":
        return "outbound"
    return {"SERVER": "request", "PRODUCER": "enqueue", "CONSUMER": "job"}.get(span.kind, "inner")


def errors(row: Row) -> list[str]:
    """Why it failed: exceptions, else the status."""
    said = []
    for span in row.spans:
        found = [e.attributes for e in span.events if e.name == "exception"]
        said += [one_line(f"{e.get('exception.type', 'exception')}: {e.get('exception.message', '')}", 300) for e in found]
        why = span.status_message or str(span.get("error.type"))
        if span.failed and not found and why and why != str(span.get("http.response.status_code")):  # that is in the title
            said.append(one_line(why, 300))
    return list(dict.fromkeys(said))


def log_text(log: Log) -> str:
    """The body, and the exception that came with it."""
    kind = log.attributes.get("exception.type")
    text = one_line(log.body)
    return f"{text} · {one_line(kind)}: {one_line(log.attributes.get('exception.message', ''))}" if kind else text


def lane_title(lane: Lane) -> str:
    """Who did it: the service, its role, its trace."""
    first = lane.first
    role = one_line(first.resource.get("chegou.role", ""))
    who = f"{one_line(first.service) or 'unknown service'}{f' ({role})' if role else ''}"
    return f"{who} · trace {first.trace_id}" if first.trace_id else f"{who} · outside of any trace"


def headline(story: Story) -> str:
    """The story in one sentence."""
    entry = story.entry
    said = [f"{span_title(entry)} in {duration(entry.seconds)}"] if entry and entry.kind != "CONSUMER" else []
    said += [_job_sentence(job) for job in story.jobs]
    return "; ".join(said) or f"{len(story.records.logs)} log records"


def _job_sentence(job: Job) -> str:
    name = one_line(job.name)
    if not job.attempts:
        return f"job {name} enqueued, not run yet"
    times = f"failed {job.failures}{TIMES}, " if job.failures else ""
    if job.state == RETRIED:
        return f"job {name} {times}to be tried again"
    if job.state == "finished":
        return f"job {name} {times}finished{f' on attempt {job.attempt}' if job.failures else ''} in {duration(job.attempts[-1].seconds)}"
    return f"job {name} {one_line(job.ending)} after {job.attempt} attempt{'' if job.attempt == 1 else 's'}"


def figures(story: Story) -> list[tuple[str, str]]:
    """The verdict in numbers, those that are not zero."""
    v = story.verdict
    told: list[tuple[str, str, bool]] = [
        ("total", duration(v.total_seconds), True),
        ("active", duration(v.active_seconds), bool(story.records.spans)),
        ("queue wait", duration(v.queue_wait_seconds), v.attempts > 0),
        ("attempts", str(v.attempts), v.attempts > 0),
        ("SQL", f"{v.sql.number} in {duration(v.sql.seconds)}", v.sql.number > 0),
        ("Redis", f"{v.redis.number} in {duration(v.redis.seconds)}", v.redis.number > 0),
        ("outbound", f"{v.outbound.number} in {duration(v.outbound.seconds)}", v.outbound.number > 0),
        ("errors", str(v.errors), v.errors > 0),
        ("error logs", str(v.error_logs), v.error_logs > 0),
        ("logs", str(len(story.records.logs)), bool(story.records.logs)),
    ]
    return [(name, value) for name, value, shown in told if shown]
