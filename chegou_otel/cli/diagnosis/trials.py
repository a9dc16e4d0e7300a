"""A request, a forked job and a log line, as the application would record them. In the probe's process only."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import time
import warnings
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.trace import SpanKind

from chegou_otel.correlation import use_correlation_id

if TYPE_CHECKING:
    from chegou_otel._runtime import Runtime

PATH: Final = "/chegou-otel-doctor/"
JOB: Final = "process chegou-otel-doctor"
LOGGER: Final = "doctor"  # what begins with chegou_otel is never sent
_JOB_SECONDS: Final = 3.0
_PAUSE: Final = 0.01


def request(correlation: str, *, django: bool) -> str:
    """One request through the whole stack of middleware, to a path that nobody serves. What came of it."""
    if not django:
        with use_correlation_id(correlation), trace.get_tracer("doctor").start_as_current_span("doctor", kind=SpanKind.SERVER):
            return "a span (there is no Django here)"
    from django.core.servers.basehttp import get_internal_wsgi_application

    status: list[str] = []
    answer: Any = get_internal_wsgi_application()(_environ(correlation), lambda line, *_: status.append(line))
    try:
        for _part in answer:
            pass
    finally:
        getattr(answer, "close", lambda: None)()
    return f"GET {PATH} → {status[0].partition(' ')[0] if status else 'no answer'}"


def _environ(correlation: str) -> dict[str, Any]:
    from django.conf import settings

    host = next((name.lstrip(".") for name in settings.ALLOWED_HOSTS if "*" not in name), "localhost")
    scheme = "https" if settings.SECURE_SSL_REDIRECT else "http"
    return {
        "REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": PATH, "QUERY_STRING": "", "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": host, "SERVER_PORT": "443" if scheme == "https" else "80", "REMOTE_ADDR": "127.0.0.1", "HTTP_HOST": host,
        "HTTP_USER_AGENT": "chegou-otel doctor", "HTTP_X_CORRELATION_ID": correlation, "wsgi.version": (1, 0),
        "wsgi.url_scheme": scheme, "wsgi.input": io.BytesIO(), "wsgi.errors": sys.stderr, "wsgi.multithread": False,
        "wsgi.multiprocess": True, "wsgi.run_once": False,
    }  # fmt: skip


def log_line(correlation: str) -> str:
    """One warning. What came of it."""
    logger = logging.getLogger(LOGGER)
    if not logger.isEnabledFor(logging.WARNING):
        return "LOGGING lets no warning of a new logger pass"
    with use_correlation_id(correlation):
        logger.warning("chegou-otel doctor: a log line")
    return "a warning"


def job(runtime: Runtime, correlation: str) -> str:
    """A child that records into a segment of ours, as a work-horse does. No queue is touched. What came of it."""
    recorder = runtime.recorder
    segment = recorder.reserve()
    with use_correlation_id(correlation), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fork beside the courier's thread is what this is about
        child = os.fork()
        if not child:
            _in_child(runtime, segment)
    ended = _wait(child)
    recorder.drain(segment)
    return "a forked work-horse (no queue was touched)" if ended else "the forked child did not end, and was killed"


def _in_child(runtime: Runtime, segment: Any) -> None:
    try:
        runtime.recorder.become(segment)
        runtime.metrics.cross_to_parent()
        with trace.get_tracer("doctor").start_as_current_span(JOB, kind=SpanKind.CONSUMER):
            pass
    finally:
        os._exit(0)


def _wait(child: int) -> bool:
    deadline = time.monotonic() + _JOB_SECONDS
    while time.monotonic() < deadline:
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        time.sleep(_PAUSE)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False
