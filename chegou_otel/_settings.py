"""Settings are data: name, type, default, environment variable, help, in one place.

Precedence: argument of ``setup()``, then environment, then default. A wrong argument raises at once and says what is right; a wrong
environment value warns and falls back, because a deployment must not fail on a typo in telemetry.
"""

from __future__ import annotations

import difflib
import functools
import json
import math
import os
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypedDict

Mode = Literal["own", "upstream", "off"]


def _setting(default: Any, env: str | None, text: str, *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"env": env, "help": text})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting, as ``setup()`` takes it."""

    service_name: str | None = _setting(
        None, "OTEL_SERVICE_NAME", "Name of the service. Default: the package of the Django settings module."
    )
    service_version: str | None = _setting(
        None, "CHEGOU_OTEL_SERVICE_VERSION", "Version of the service. Default: the commit that is checked out."
    )
    environment: str | None = _setting(None, "CHEGOU_OTEL_ENVIRONMENT", "Deployment environment, such as `production`.")
    endpoint: str | None = _setting(
        None,
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "Base URL of the collector; `/v1/traces` and its like are added, but not for gRPC. "
        "Default: `http://localhost:4318`, and `http://localhost:4317` for gRPC.",
    )
    proxy: str | None = _setting(
        None,
        "CHEGOU_OTEL_PROXY",
        "HTTP proxy on the way to the collector: `http://user:password@proxy:3128`. Default: none; `HTTPS_PROXY` and its like say nothing.",
        secret=True,
    )
    active: Literal["auto", "always", "never"] = _setting(
        "auto",
        "CHEGOU_OTEL_ACTIVE",
        "`auto`: nothing is sent under a test runner nor by `migrate`, `shell` and the like, and runserver's reloader stays idle. "
        "`always`: whatever runs. `never`: correlation IDs only.",
    )
    traces: bool = _setting(True, "CHEGOU_OTEL_TRACES", "Record spans.")
    metrics: bool = _setting(True, "CHEGOU_OTEL_METRICS", "Record metrics.")
    metrics_max_series: int = _setting(
        2_000,
        "CHEGOU_OTEL_METRICS_MAX_SERIES",
        "Most series of one instrument; further ones are added up in one, and a warning names the attribute that has too many values.",
    )
    logs: bool = _setting(True, "CHEGOU_OTEL_LOGS", "Bridge log records.")
    integrations: tuple[str, ...] | None = _setting(
        None, "CHEGOU_OTEL_INTEGRATIONS", "Only these integrations, by name. Default: all whose library is installed."
    )
    disabled_integrations: tuple[str, ...] = _setting((), "CHEGOU_OTEL_DISABLED_INTEGRATIONS", "Integrations to leave out, by name.")
    django: Mode = _setting("own", "CHEGOU_OTEL_DJANGO", "`own`, `upstream` (opentelemetry-instrumentation-django) or `off`.")
    redis: Mode = _setting("own", "CHEGOU_OTEL_REDIS", "`own`, `upstream` (opentelemetry-instrumentation-redis) or `off`.")
    propagate_to: tuple[str, ...] = _setting(
        (),
        "CHEGOU_OTEL_PROPAGATE_TO",
        "Hosts that receive `traceparent`, baggage and the correlation ID: `api.example.com`, `*.internal`. Loopback always does; nobody else.",
    )
    trust_from: tuple[str, ...] = _setting(
        (),
        "CHEGOU_OTEL_TRUST_FROM",
        "Networks whose `traceparent` and baggage are believed, such as `10.0.0.0/8`. Others get a new trace and a link.",
    )
    response_header: str = _setting(
        "X-Correlation-ID", "CHEGOU_OTEL_RESPONSE_HEADER", "Response header that carries the correlation ID; empty: none."
    )
    excluded_paths: tuple[str, ...] = _setting(
        (), "CHEGOU_OTEL_EXCLUDED_PATHS", "Paths without spans and metrics; `*` matches anything: `/health/`, `/static/*`."
    )
    sampling: tuple[str, ...] = _setting(
        (),
        "CHEGOU_OTEL_SAMPLING",
        "Which share of requests, jobs and commands has spans: `health=0`, `GET /reports/*=1.0`, `job:shop.tasks.*=0.1`, `queue:low=0.05`, "
        "`errors=1.0`, `*=0.25`. The first that fits decides; where none does, `OTEL_TRACES_SAMPLER`. Metrics are never sampled.",
    )
    user: Literal["id", "hash", "off"] = _setting("id", "CHEGOU_OTEL_USER", "The user on the span: primary key, its hash, or nothing.")
    client_address: bool = _setting(False, "CHEGOU_OTEL_CLIENT_ADDRESS", "Put the client's IP address on the server span.")
    capture_request_headers: tuple[str, ...] = _setting((), "CHEGOU_OTEL_CAPTURE_REQUEST_HEADERS", "Request headers to record, redacted.")
    capture_response_headers: tuple[str, ...] = _setting(
        (), "CHEGOU_OTEL_CAPTURE_RESPONSE_HEADERS", "Response headers to record, redacted."
    )
    sql_comment: bool = _setting(
        False, "CHEGOU_OTEL_SQL_COMMENT", "Append the correlation ID to SQL as a comment; PostgreSQL then shows it in `pg_stat_activity`."
    )
    rq_trace_shape: Literal["auto", "links", "parents"] = _setting(
        "auto",
        "CHEGOU_OTEL_RQ_TRACE_SHAPE",
        "How a job's run joins the span that enqueued it. `auto`: as its child, with its retries; in a trace of its own, linked, when it was "
        "scheduled, repeated or requeued. `links`: every run in a trace of its own. `parents`: every run as a child. The worker's setting counts.",
    )
    rq_job_categories: tuple[str, ...] = _setting(
        (),
        "CHEGOU_OTEL_RQ_JOB_CATEGORIES",
        "Categories of jobs, as the label `rq.job.category`: `shop.reports.*=Report Generation`, a pattern of function names and a category. "
        "The first that fits counts; what none fits is `other`. Default: no such label.",
    )
    rq_reporter: bool = _setting(
        True, "CHEGOU_OTEL_RQ_REPORTER", "Be a candidate for reporting queue depths, workers and cron; one process per deployment does."
    )
    redact: bool = _setting(True, "CHEGOU_OTEL_REDACT", "Redact secrets and personal data before anything leaves the process.")
    redact_keys: tuple[str, ...] = _setting((), "CHEGOU_OTEL_REDACT_KEYS", "Further keys whose values are secret.")
    redact_allow_keys: tuple[str, ...] = _setting(
        (), "CHEGOU_OTEL_REDACT_ALLOW_KEYS", "Keys whose values are not secret although their names look like it: `token_count`."
    )
    redact_patterns: tuple[str, ...] = _setting((), "CHEGOU_OTEL_REDACT_PATTERNS", "Further regular expressions whose matches are secret.")
    redact_emails: bool = _setting(False, "CHEGOU_OTEL_REDACT_EMAILS", "Redact e-mail addresses, too.")
    spool_dir: str | None = _setting(
        None,
        "CHEGOU_OTEL_SPOOL_DIR",
        "Folder for what is not delivered yet. In containers: a volume. Default: below `~/.local/state/chegou-otel`.",
    )
    spool: Literal["disk", "memory"] = _setting(
        "disk", "CHEGOU_OTEL_SPOOL", "`memory`: what is not delivered yet touches no disk, and is gone with its process."
    )
    spool_max_age: float = _setting(
        604_800.0,
        "CHEGOU_OTEL_SPOOL_MAX_AGE",
        "Seconds after which what a process left that is gone is given up, and counted (default: a week); 0: never.",
    )
    spool_max_bytes: int = _setting(64 * 1024 * 1024, "CHEGOU_OTEL_SPOOL_MAX_BYTES", "Most that one process keeps, in bytes.")
    switch_redis_url: str | None = _setting(
        None,
        "CHEGOU_OTEL_SWITCH_REDIS_URL",
        "A Redis in which `chegou-otel off --redis` switches telemetry off on all hosts. Asked every two seconds, by a thread of its own.",
    )
    exit_timeout: float = _setting(
        2.0, "CHEGOU_OTEL_EXIT_TIMEOUT", "Seconds that the process waits at exit for what is left; the rest stays in the spool."
    )


class Options(TypedDict, total=False):
    """``setup()``'s keyword arguments beside ``service_name``; the same as :class:`Settings` (tested)."""

    service_version: str | None
    environment: str | None
    endpoint: str | None
    proxy: str | None
    active: Literal["auto", "always", "never"]
    traces: bool
    metrics: bool
    metrics_max_series: int
    logs: bool
    integrations: Iterable[str] | None
    disabled_integrations: Iterable[str]
    django: Mode
    redis: Mode
    propagate_to: Iterable[str]
    trust_from: Iterable[str]
    response_header: str
    excluded_paths: Iterable[str]
    sampling: Iterable[str]
    user: Literal["id", "hash", "off"]
    client_address: bool
    capture_request_headers: Iterable[str]
    capture_response_headers: Iterable[str]
    sql_comment: bool
    rq_trace_shape: Literal["auto", "links", "parents"]
    rq_job_categories: Iterable[str]
    rq_reporter: bool
    redact: bool
    redact_keys: Iterable[str]
    redact_allow_keys: Iterable[str]
    redact_patterns: Iterable[str]
    redact_emails: bool
    spool_dir: str | None
    spool: Literal["disk", "memory"]
    spool_max_age: float
    spool_max_bytes: int
    switch_redis_url: str | None
    exit_timeout: float


_PREFIX = "CHEGOU_OTEL_"
#: Variables with our prefix that are read elsewhere: by our commands, and by the scripts of this repository.
_OTHERS = frozenset(f"{_PREFIX}{name}" for name in ("BIN", "ENVIRONMENTS", "PYTHON", "QUERY_URL", "RUN", "SERVERS", "SUITES"))
_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


def _boolean(text: str) -> bool:
    lowered = text.strip().lower()
    if lowered in _TRUE:
        return True
    if lowered in _FALSE:
        return False
    raise ValueError("use true or false")


def _listed(text: str) -> tuple[str, ...]:
    """Separated by commas, or a JSON list, in which an item may hold a comma."""
    if text.lstrip().startswith('["'):
        try:
            return tuple(item for item in json.loads(text) if item)
        except ValueError as error:
            raise ValueError(f'what begins with [" is a JSON list of strings, and this is none: {error}') from None
    return tuple(item.strip() for item in text.split(",") if item.strip())


_PARSERS: dict[Any, Callable[[str], Any]] = {bool: _boolean, int: int, float: float, str: str.strip, tuple: _listed}


class Shape(typing.NamedTuple):
    """A setting's type, taken apart: its base type, the allowed words of a ``Literal``, whether ``None`` is allowed."""

    base: type
    words: tuple[str, ...]
    optional: bool

    def __str__(self) -> str:
        return " | ".join(repr(word) for word in self.words) or ("list of str" if self.base is tuple else self.base.__name__)


@functools.cache
def shapes() -> Mapping[str, Shape]:
    """The shape of every setting, by name."""
    return {name: _shape(hint) for name, hint in typing.get_type_hints(Settings).items()}


def _shape(hint: Any) -> Shape:
    options = [option for option in typing.get_args(hint) if option is not type(None)]
    if typing.get_origin(hint) is Literal:
        return Shape(str, tuple(options), False)
    if typing.get_origin(hint) is tuple:
        return Shape(tuple, (), False)
    if options:  # X | None
        return _shape(options[0])._replace(optional=True)
    return Shape(hint, (), False)


def check(name: str, value: Any, shape: Shape) -> Any:
    """``value`` as the setting takes it.

    Raises:
        TypeError: it has the wrong type.
        ValueError: it has the right type and is not one of the allowed words, or below zero.
    """
    if value is None and shape.optional:
        return None
    if shape.base is tuple:
        items = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (None,)
        if not all(isinstance(item, str) for item in items):
            raise TypeError(f"{name} takes a list of strings, not {value!r}")
        return tuple(str.__str__(item) for item in items)  # members of a str enumeration are more than that
    if shape.base is float and type(value) is int:
        value = float(value)
    if type(value) is not shape.base:
        raise TypeError(f"{name} takes {shape}, not {value!r}")
    if shape.words and value not in shape.words:
        raise ValueError(f"{name} takes {shape}, not {value!r}")
    if isinstance(value, int | float) and not (value >= 0 and math.isfinite(value)):
        raise ValueError(f"{name} is finite and not negative, and this is: {value!r}")
    return value


def checked(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """``arguments`` as the settings take them: plain values that may be read, and written down, any number of times.

    Raises:
        TypeError: an argument that is no setting (the message names the nearest one), or of the wrong type.
        ValueError: a value that is not allowed.
    """
    known = shapes()
    for name in arguments:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; the settings are {', '.join(known)}"
            raise TypeError(f"setup() has no setting {name!r}{hint}")
    return {name: check(name, value, known[name]) for name, value in arguments.items()}


def load(arguments: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> tuple[Settings, list[str]]:
    """The settings for ``arguments`` over ``environ`` (default: ``os.environ``), and warnings about what was ignored.

    Raises:
        TypeError, ValueError: as :func:`checked`.
    """
    environ = os.environ if environ is None else environ
    given = checked(arguments)
    warnings: list[str] = []
    values = _from_environment(environ, shapes(), warnings)
    warnings += _unknown(environ)
    return Settings(**{**values, **given}), warnings


def _unknown(environ: Mapping[str, str]) -> list[str]:
    """One line for each variable with our prefix that nobody reads."""
    known = [variable for setting in fields(Settings) if (variable := setting.metadata["env"])]
    found = []
    for name in sorted(environ):
        if name.startswith(_PREFIX) and name not in known and name not in _OTHERS:
            near = difflib.get_close_matches(name, known, 1, 0.8)
            found.append(f"{name} is no setting and is ignored{f'; did you mean {near[0]}?' if near else ''}")
    return found


def _from_environment(environ: Mapping[str, str], known: Mapping[str, Shape], warnings: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for setting in fields(Settings):
        variable = setting.metadata["env"]
        text = environ.get(variable, "") if variable else ""
        if not text.strip() and not (setting.name == "response_header" and variable in environ):
            continue
        shape = known[setting.name]
        try:
            values[setting.name] = check(setting.name, _PARSERS[shape.base](text), shape)
        except (TypeError, ValueError) as error:
            warnings.append(f"{variable}={text!r} is ignored ({error}); {setting.name} stays {setting.default!r}")
    return values
