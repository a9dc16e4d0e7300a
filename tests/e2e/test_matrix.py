"""Every worker class times every ending times every signal: each execution told exactly once, truthfully, with its lines and numbers.

One worker process per class runs many jobs; those that end with their worker get one each. Everything is a real process, and what is
compared is what each job noted that it recorded, and what a receiver got.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter

import psutil
import pytest
import rq
import rq.worker

from tests.delivery.receiver import Receiver
from tests.e2e.accounting import Books, Floor, attributes

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(180)]

#: What each execution of such a job ends as, in order.
ENDINGS = {
    "finished": ["finished"],
    "failed": ["failed"],
    "retried": ["retried", "finished"],
    "returned": ["retried", "finished"],
    "timed_out": ["timed_out"],
    "stopped": ["stopped"],
    "killed": ["killed"],
    "exit_0": ["vanished"],
    "exit_1": ["vanished"],
    "sys_exit": ["failed"],
    "dependent": ["finished"],
    "cancelled": [],
    "warm": ["finished"],
    "imminent": ["failed"],
    "cold": ["killed"],
    "abandoned": ["vanished"],
}
#: Jobs that others need to exist; they finish.
COMPANIONS = ("first", "before_cancelled")
#: Where an ending means something else: nobody is left to see the signal, or RQ handles it as the job's own exception.
OTHERWISE = {
    ("SimpleWorker", "killed"): ["vanished"],
    ("SimpleWorker", "cold"): ["failed"],
    ("rq worker", "cold"): ["vanished"],
}
#: How a worker comes to be: classes by a script, ways to start by the command line.
CLASSES = ("Worker", "SpawnWorker", "SimpleWorker", "HerokuWorker", "WorkerPool")
STARTS = {
    "rq worker -c": (("-m", "rq.cli", "worker", "--url", "{url}", "-c", "floor_settings"), {}),
    "manage.py rqworker": (("manage.py", "rqworker"), {}),
    "chegou-otel run": (("-m", "chegou_otel", "run", "--", "rq", "worker", "--url", "{url}"), {"FLOOR_NO_SETUP": "1"}),
    "rq worker": (("-m", "rq.cli", "worker", "--url", "{url}"), {"FLOOR_SETUP_IN_JOBS": "1"}),
}
WORKERS = (*CLASSES, *STARTS)
#: Nobody saw the end: by whoever comes next the execution is told without a duration, and as it found the job: the process gone, or
#: the job in the registry of those that run.
UNSEEN = {
    *(("SimpleWorker", ending) for ending in ("killed", "exit_0", "exit_1")),
    ("rq worker", "cold"),
    *((worker, "abandoned") for worker in (*CLASSES, *STARTS)),
}
_ONLY_HEROKU = "only HerokuWorker warns a work-horse that it will be shut down"
#: Cells that RQ does not have.
MISSING = {
    ("SimpleWorker", "stopped"): "a stop request kills the work-horse, and there is none: RQ notes it and the job goes on",
    **{(name, "imminent"): _ONLY_HEROKU for name in WORKERS if name != "HerokuWorker"},
}
#: These end the worker, too, in a SimpleWorker.
DEADLY = ("killed", "exit_0", "exit_1")
SHUTDOWNS = ("warm", "imminent", "cold", "abandoned")


def cells():
    return [(worker, ending) for worker in WORKERS for ending in ENDINGS if (worker, ending) not in MISSING]


def wanted(worker, ending, told):
    """What the executions of such a job are to be told as; ``told`` decides where either of two is the truth."""
    if ending == "abandoned" and told == ["abandoned"]:
        return told
    return OTHERWISE.get((worker, ending), ENDINGS[ending])


class Run:
    """All endings of one worker class."""

    def __init__(self, floor, worker):
        self.floor = floor
        self.worker = worker
        self.endings = [ending for name, ending in cells() if name == worker]

    def start(self, *, burst=False):
        if self.worker in CLASSES:
            return self.floor.work(self.worker, burst=burst)
        command, env = STARTS[self.worker]
        return self.floor.start(*[part.format(url=self.floor.url) for part in command], *(["--burst"] if burst else []), **env)

    def all(self):
        self.together()
        for ending in SHUTDOWNS:
            if ending in self.endings:
                getattr(self, ending)()
        self.floor.expire_heartbeats()
        assert self.floor.end(self.start(burst=True)) == 0, self.floor.said()
        self.floor.close_desk()
        self.floor.next_process()

    def together(self):
        """One worker, one job after the other."""
        apart = DEADLY if self.worker == "SimpleWorker" else ()
        floor = self.floor
        for ending in apart:
            floor.enqueue(ending)
            floor.end(self.start(burst=True))
        names = [ending for ending in self.endings if ending not in (*SHUTDOWNS, *apart)]
        jobs = dict(zip(names, [None] * len(names), strict=True))
        floor.enqueue(*names)
        jobs.update({name: job for name, job, _ in floor.jobs})
        process = self.start()
        if "stopped" in names:
            floor.wait_note("stopped")
            rq.command.send_stop_job_command(floor.redis, jobs["stopped"])
        floor.wait_idle()
        assert self.floor.terminate(process) == 0, floor.said()

    def begun(self, ending):
        self.floor.enqueue(ending)
        process = self.start()
        if self.worker == "WorkerPool":
            # A signal that meets the second one on its way out of its fork is lost: Python ignores what is raised there.
            self.floor.wait_workers(2)
        return process, self.floor.wait_note(ending)

    def warm(self):
        process, _ = self.begun("warm")
        assert self.floor.terminate(process) == 0, self.floor.said()

    def imminent(self):
        process, _ = self.begun("imminent")
        assert self.floor.terminate(process) == 0, self.floor.said()

    def cold(self):
        """A second request, once RQ does not take it for the first's echo."""
        process, _ = self.begun("cold")
        process.terminate()
        time.sleep(1.2)
        process.terminate()
        self.floor.end(process)

    def abandoned(self):
        """The worker is killed, then its work-horse; another worker finds the job."""
        process, note = self.begun("abandoned")
        for pid in [process.pid, *(child.pid for child in psutil.Process(process.pid).children(recursive=True))]:
            os.kill(pid, signal.SIGKILL)
        self.floor.end(process)
        self.floor.wait_gone(note["pid"])


@pytest.fixture(scope="module")
def runs(redis_port, tmp_path_factory):
    """The books of a worker class, closed: every process has ended. A class runs once, whatever asks for it."""
    made = {}

    def get(worker):
        if worker not in made:
            made[worker] = AssertionError(f"{worker} did not come to its end")
            made[worker] = run(worker, redis_port, tmp_path_factory.mktemp("floor"))
        if isinstance(made[worker], AssertionError):
            raise made[worker]
        return made[worker]

    return get


def run(worker, redis_port, folder):
    receiver = Receiver()
    floor = Floor(folder, redis_port, receiver.url)
    started = time.monotonic()
    try:
        Run(floor, worker).all()
        books = Books(floor, receiver.spans, receiver.logs, receiver.metrics)
    finally:
        floor.close()
        receiver.close()
    print(
        f"\n{worker}: {len(books.notes)} executions in {time.monotonic() - started:.1f} s, twice {books.twice}, ambiguous {books.ambiguous}"
    )
    return books


def params():
    return pytest.mark.parametrize(("worker", "ending"), cells(), ids=[f"{w} x {e}" for w, e in cells()])


def told(books, ending):
    """The consumer spans of such a job, in the order of its executions."""
    return [span for note in books.of(ending) for span in books.spans.get(note["span"], ())]


@params()
def test_spans(runs, worker, ending):
    """One consumer span per execution, and it tells the truth."""
    books = runs(worker)
    notes, spans = books.of(ending), told(books, ending)
    job, correlation = next((job, known) for name, job, known in books.jobs if name == ending)
    told_ids = [span.span_id.hex() for span in books.consumers if attributes(span)["messaging.message.id"] == job]

    statuses = [attributes(span)["rq.job.status"] for span in spans]
    assert statuses == wanted(worker, ending, statuses)
    assert sorted(told_ids) == sorted(note["span"] for note in notes)
    assert [attributes(span).get("floor.key") for span in spans] == [note["key"] for note in notes]
    assert {attributes(span)["correlation_id"] for span in spans} <= {correlation}
    assert [span.trace_id.hex() for span in spans] == [note["trace"] for note in notes]
    assert [span.status.code for span in spans] == [0 if status == "finished" or ending == "returned" else 2 for status in statuses]
    assert all("recorded" in [event.name for event in span.events] for span in spans)
    assert [books.inner[f"inner {note['key']}"] for note in notes] == [1] * len(notes)
    sent = [span for span in books.all_spans if span.kind == 4 and attributes(span).get("messaging.message.id") == job]
    assert len(sent) == 1
    assert {(span.trace_id, span.parent_span_id) for span in spans} <= {(sent[0].trace_id, sent[0].span_id)}


@params()
def test_logs(runs, worker, ending):
    """Every line that the job wrote, once, with the IDs of its execution."""
    books = runs(worker)
    for note in books.of(ending):
        lines = [books.logs.get(f"{note['key']} line {number} of {ending}", []) for number in range(2)]
        assert [len(each) for each in lines] == [1, 1]
        for (line,) in lines:
            assert (line.trace_id.hex(), line.span_id.hex()) == (note["trace"], note["span"])
            assert attributes(line)["correlation_id"] == note["correlation"]


@params()
def test_metrics(runs, worker, ending):
    """The outcome and the duration of every execution counted once, and what the job itself counted."""
    books = runs(worker)
    statuses = wanted(worker, ending, [attributes(span)["rq.job.status"] for span in told(books, ending)])
    labels = ("rq.job.function", "rq.job.status")
    ran = {(f"floor_jobs.{ending}", status): count for status, count in Counter(statuses).items()}
    outcomes, durations = books.totals("rq.job.executions", *labels), books.totals("messaging.process.duration", *labels)

    assert {key: count for key, count in outcomes.items() if key[0] == f"floor_jobs.{ending}"} == ran
    assert {key: count for key, count in durations.items() if key[0] == f"floor_jobs.{ending}"} == (
        {} if (worker, ending) in UNSEEN else ran
    )
    assert books.totals("floor.ran", "ending")[ending,] == len(statuses)
    assert books.totals("floor.size", "ending")[ending,] == len(statuses)


@pytest.mark.parametrize("worker", WORKERS)
def test_nothing_else_ran_and_nothing_is_left(runs, worker):
    """No span of an execution that was none; nothing dropped, nothing held by the last one out."""
    books = runs(worker)
    names = Counter(name for name, _, _ in books.jobs)
    assert set(names) == {ending for name, ending in cells() if name == worker} | set(COMPANIONS)
    assert set(names.values()) == {1}
    assert Counter(span.span_id.hex() for span in books.consumers) == Counter(note["span"] for note in books.notes), books.odd()
    assert all(books.twice[name] <= books.ambiguous[name] for name in books.twice), (books.twice, books.ambiguous)
    signals = ("traces", "logs", "metrics")
    assert not [line[name]["dropped"] for line in books.ledgers for name in signals if any(line[name]["dropped"].values())]
    assert not [books.ledgers[-1][name]["held"] for name in signals if books.ledgers[-1][name]["held"]]


def test_every_cell_runs_or_is_listed_with_its_reason():
    every = {(worker, ending) for worker in WORKERS for ending in ENDINGS}
    assert set(cells()) | set(MISSING) == every
    assert not set(cells()) & set(MISSING)
    assert all(MISSING.values())
    assert set(OTHERWISE) | UNSEEN <= set(cells())


def test_rq_does_not_have_the_cells_that_are_missing():
    assert rq.worker.SimpleWorker.kill_horse is rq.worker.BaseWorker.kill_horse  # does nothing
    warned = [name for name in CLASSES if hasattr(getattr(rq.worker, name, None), "request_force_stop_sigrtmin")]
    assert warned == ["HerokuWorker"]
