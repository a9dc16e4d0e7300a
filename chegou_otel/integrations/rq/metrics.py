"""What is measured of jobs: every instrument in one place, with the labels that it may have.

A label is one of a bounded set: queue, function, outcome, kind of error, category. Names past a bound share ``_OTHER``; worker names,
job IDs and correlation IDs are on spans, never here. In a work-horse a measurement crosses to the worker, which adds it up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from chegou_otel.integrations._categories import categorizer

if TYPE_CHECKING:
    from chegou_otel._runtime import Runtime
    from chegou_otel.signals.metrics import Labels, Series

#: Jobs take from milliseconds to hours.
BUCKETS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1_800.0, 3_600.0, 7_200.0)
#: CPU time of a job may be far below its duration.
CPU_BUCKETS: Final = (0.001, 0.005, *BUCKETS[:-1])
_MIB: Final = 1024 * 1024
MEMORY_BUCKETS: Final = tuple(float(size * _MIB) for size in (1, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_000, 4_000))
#: Distinct values of a label, over all instruments.
LIMITS: Final = {"rq.job.function": 200, "messaging.destination.name": 100, "error.type": 100}
_MAX_CACHED: Final = 2_000
#: What an execution measured in its work-horse crosses to the worker under this name.
_SOURCE: Final = "rq"


class Measures:
    """The instruments of RQ. Functions may be unknown (empty), and so may what the kernel tells of a job (``None``)."""

    def __init__(self, runtime: Runtime) -> None:
        metrics = self._metrics = runtime.metrics
        metrics.groups[_SOURCE] = self._of_execution
        metrics.limits.update(LIMITS)
        self._category = categorizer(runtime.settings.rq_job_categories)
        self._bases: dict[tuple[str, str], Labels] = {}
        self._endings: dict[tuple[str, str, str, str], tuple[Series | None, ...]] = {}
        self._sent = metrics.counter("messaging.client.sent.messages", "{message}", "Jobs enqueued.")
        self._duration = metrics.histogram("messaging.process.duration", "s", "Duration of job executions.", BUCKETS)
        self._executions = metrics.counter("rq.job.executions", "{execution}", "Executions by outcome.")
        self._retries = metrics.counter("rq.job.retries", "{execution}", "Executions after which the job is run again.")
        self._not_run = metrics.counter("rq.job.not_run", "{job}", "Jobs that came to an end without having run.")
        self._wait = metrics.histogram("rq.job.queue_wait", "s", "Time from enqueue to start of a job.", BUCKETS)
        self._late = metrics.histogram("rq.job.schedule_lateness", "s", "How long after its time a scheduled job started.", BUCKETS)
        self._cpu = metrics.histogram("rq.job.cpu_time", "s", "CPU time of job executions.", CPU_BUCKETS)
        self._memory = metrics.histogram("rq.job.memory_growth", "By", "Growth of memory during job executions.", MEMORY_BUCKETS)

    def sent(self, queue: str, function: str) -> Series:
        """The series that counts a job enqueued; keep it."""
        return self._sent.series((("messaging.operation.name", "send"), *self._base(queue, function)))

    def started(self, queue: str, function: str, wait: float | None, lateness: float | None = None, span: Any = None) -> None:
        """An execution begins: seconds since the enqueue, and since the time for which it was scheduled. ``span``: its own."""
        base = self._base(queue, function)
        if wait is not None:
            self._wait.series(base).record(wait, span)
        if lateness is not None:
            self._late.series(base).record(lateness, span)

    def ended(
        self, queue: str, function: str, outcome: str, seconds: float | None, error: str = "", cpu: float | None = None,
        memory: float | None = None, span: Any = None,
    ) -> None:  # fmt: skip
        """An execution ended.

        Args:
            queue: Its name.
            function: The dotted name, or empty.
            outcome: ``finished``, ``failed``, …
            seconds: How long it ran; nobody knows that of a process that was found gone.
            error: The kind of it, such as an exception's type.
            cpu: Seconds of CPU.
            memory: Bytes by which memory grew.
            span: Its own.
        """
        self._metrics.together(span, _SOURCE, queue, function, outcome, seconds, error, cpu, memory)

    def _of_execution(
        self, queue: str, function: str, outcome: str, seconds: float | None, error: str, cpu: float | None, memory: float | None
    ) -> list[tuple[Series, float]]:
        known = self._endings.get((queue, function, outcome, error)) or self._ending(queue, function, outcome, error)
        values = (1, 1, seconds, cpu, None if memory is None else max(0.0, memory))
        return [(series, value) for series, value in zip(known, values, strict=True) if series is not None and value is not None]

    def _ending(self, queue: str, function: str, outcome: str, error: str) -> tuple[Series | None, ...]:
        """The series of an end: executions, retries, duration, CPU, memory."""
        base = self._base(queue, function)
        status = (("rq.job.status", outcome),)
        failed = (("error.type", error),) if error else ()
        found = (
            self._executions.series((*base, *status)),
            self._retries.series((*base, *failed)) if outcome == "retried" else None,
            self._duration.series((("messaging.operation.name", "process"), *base, *status, *failed)),
            self._cpu.series(base),
            self._memory.series(base),
        )
        if len(self._endings) < _MAX_CACHED:
            self._endings[queue, function, outcome, error] = found
        return found

    def not_run(self, queue: str, function: str, outcome: str) -> None:
        """A job came to an end without having run: cancelled, lost on its way, …"""
        self._not_run.series((*self._base(queue, function), ("rq.job.status", outcome))).add(1)

    def _base(self, queue: str, function: str) -> Labels:
        known = self._bases.get((queue, function))
        if known is None:
            known = self._labels(queue, function)
            if len(self._bases) < _MAX_CACHED:
                self._bases[queue, function] = known
        return known

    def _labels(self, queue: str, function: str) -> Labels:
        found: list[Any] = [("messaging.system", "rq"), ("messaging.destination.name", queue)]
        if function:
            found.append(("rq.job.function", function))
        if self._category is not None:
            found.append(("rq.job.category", self._category(function)))
        return tuple(found)
