"""Every ``OTEL_*`` variable of the specification, and what becomes of it here.

The settings table is generated from this, and a variable that is set but not honoured is warned about: silence would be read
as consent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

Status = Literal["honoured", "not yet", "no"]


class Variable(NamedTuple):
    """A variable: whether it is honoured, and what to know about that."""

    status: Status
    note: str


_OTLP: Final = "OTEL_EXPORTER_OTLP_"
_SIGNALS: Final = ("TRACES", "METRICS", "LOGS")


def _per_signal(suffix: str, variable: Variable) -> dict[str, Variable]:
    return dict.fromkeys((f"{_OTLP}{suffix}", *(f"{_OTLP}{signal}_{suffix}" for signal in _SIGNALS)), variable)


_HONOURED: Final = "honoured"
_BATCHES: Final = Variable("no", "there is no batch processor: spans and log records lie in bounded segments until they are delivered")

VARIABLES: Final[dict[str, Variable]] = {
    "OTEL_SDK_DISABLED": Variable(_HONOURED, "correlation IDs still work"),
    "OTEL_SERVICE_NAME": Variable(_HONOURED, ""),
    "OTEL_RESOURCE_ATTRIBUTES": Variable(_HONOURED, "over what is guessed, under arguments of `setup()`"),
    "OTEL_TRACES_SAMPLER": Variable(_HONOURED, ""),
    "OTEL_TRACES_SAMPLER_ARG": Variable(_HONOURED, ""),
    "OTEL_PROPAGATORS": Variable(_HONOURED, "for allowed hosts only"),
    "OTEL_TRACES_EXPORTER": Variable(_HONOURED, "`otlp` or `none`"),
    "OTEL_METRICS_EXPORTER": Variable(_HONOURED, "`otlp` or `none`"),
    "OTEL_LOGS_EXPORTER": Variable(_HONOURED, "`otlp` or `none`"),
    "OTEL_METRIC_EXPORT_INTERVAL": Variable(_HONOURED, "milliseconds; default 60000"),
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": Variable(_HONOURED, "default 128"),
    "OTEL_ATTRIBUTE_COUNT_LIMIT": Variable(_HONOURED, "default 128"),
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT": Variable(_HONOURED, "without a warning per value"),
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT": Variable(_HONOURED, "without a warning per value"),
    "OTEL_SPAN_EVENT_COUNT_LIMIT": Variable(_HONOURED, "default 128"),
    "OTEL_SPAN_LINK_COUNT_LIMIT": Variable(_HONOURED, "default 128"),
    **_per_signal("ENDPOINT", Variable(_HONOURED, "")),
    **_per_signal("HEADERS", Variable(_HONOURED, "")),
    **_per_signal("TIMEOUT", Variable(_HONOURED, "milliseconds of wall clock for one whole request")),
    **_per_signal("COMPRESSION", Variable(_HONOURED, "`gzip` (default) or `none`")),
    **_per_signal("CERTIFICATE", Variable(_HONOURED, "wins over `REQUESTS_CA_BUNDLE`")),
    **_per_signal("CLIENT_KEY", Variable(_HONOURED, "")),
    **_per_signal("CLIENT_CERTIFICATE", Variable(_HONOURED, "")),
    **_per_signal("PROTOCOL", Variable(_HONOURED, "`http/protobuf` (default), `http/json`, or `grpc`: `pip install 'chegou-otel[grpc]'`")),
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": Variable(_HONOURED, "`cumulative` (default), `delta` or `lowmemory`"),
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": Variable(
        _HONOURED, "for your own histograms; ours keep explicit buckets, which the semantic conventions and alerts on them name"
    ),
    "OTEL_METRICS_EXEMPLAR_FILTER": Variable(_HONOURED, "`trace_based` (default), `always_on` or `always_off`"),
    "OTEL_METRIC_EXPORT_TIMEOUT": Variable("no", "metrics are delivered like everything else, within `OTEL_EXPORTER_OTLP_TIMEOUT`"),
    "OTEL_SEMCONV_STABILITY_OPT_IN": Variable("no", "the stable conventions are the only ones here"),
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT": Variable("no", "`OTEL_ATTRIBUTE_COUNT_LIMIT` holds for events too"),
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT": Variable("no", "`OTEL_ATTRIBUTE_COUNT_LIMIT` holds for links too"),
    "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT": Variable("no", "`OTEL_ATTRIBUTE_COUNT_LIMIT` holds for log records too"),
    "OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT": Variable("no", "`OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT` holds for log records too"),
    "OTEL_CONFIG_FILE": Variable("no", "settings are arguments and variables"),
    "OTEL_EXPERIMENTAL_CONFIG_FILE": Variable("no", "settings are arguments and variables"),
    "OTEL_LOG_LEVEL": Variable("no", "set the level of the logger `chegou_otel`"),
    **_per_signal("INSECURE", Variable(_HONOURED, "for `grpc` with an endpoint that has no scheme: `true` means without TLS")),
    "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": Variable("no", "no detector is run; use `OTEL_RESOURCE_ATTRIBUTES`"),
    "OTEL_EXPORTER_ZIPKIN_TIMEOUT": Variable("no", "the collector exports to Zipkin"),
    "OTEL_EXPORTER_PROMETHEUS_HOST": Variable("no", "metrics go to the collector"),
    "OTEL_EXPORTER_PROMETHEUS_PORT": Variable("no", "metrics go to the collector"),
    "OTEL_EXPORTER_ZIPKIN_ENDPOINT": Variable("no", "the collector exports to Zipkin"),
    "OTEL_ENTITIES": Variable("no", "use `OTEL_RESOURCE_ATTRIBUTES`"),
    **{
        f"OTEL_{processor}_{name}": _BATCHES
        for processor in ("BSP", "BLRP")
        for name in ("SCHEDULE_DELAY", "EXPORT_TIMEOUT", "MAX_QUEUE_SIZE", "MAX_EXPORT_BATCH_SIZE")
    },
}

#: Values that are honoured although the variable as a whole is not: nothing to warn about.
_FINE: Final = {"OPT_IN": "http"}
#: The words that a variable takes, the default first.
_CHOICES: Final = {
    "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": ("cumulative", "delta", "lowmemory"),
    "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": ("explicit_bucket_histogram", "base2_exponential_bucket_histogram"),
    "OTEL_METRICS_EXEMPLAR_FILTER": ("trace_based", "always_on", "always_off"),
}
#: Names of whole numbers above zero; the time-outs of OTLP have a warning of their own.
_NUMBERS: Final = ("_LIMIT", "_INTERVAL")
_EXPORTERS: Final = frozenset({"otlp", "none"})


def warnings(environ: Mapping[str, str]) -> list[str]:
    """One line for each ``OTEL_*`` variable that is set and not honoured."""
    found = []
    for name, variable in VARIABLES.items():
        value = environ.get(name, "").strip()
        if value and name.endswith("S_EXPORTER") and value.lower() not in _EXPORTERS:
            found.append(f"{name}={value!r} is ignored (use otlp or none); what is recorded is sent by OTLP")
        if value and value.lower() not in _CHOICES.get(name, (value.lower(),)):
            found.append(f"{name}={value!r} is ignored (use {' or '.join(_CHOICES[name])}); {_CHOICES[name][0]} holds")
        if value and variable.status == _HONOURED and name.endswith(_NUMBERS) and number({name: value}, name) is None:
            found.append(f"{name}={value!r} is ignored (use a whole number above zero); the default holds")
        if (
            not value
            or variable.status == _HONOURED
            or any(name.endswith(end) and value.lower().startswith(fine) for end, fine in _FINE.items())
        ):
            continue
        found.append(f"{name}={value!r} is not honoured{' yet' if variable.status == 'not yet' else ''}: {variable.note}")
    return found


def export_interval(environ: Mapping[str, str]) -> float:
    """Seconds between two collections of metrics."""
    return (number(environ, "OTEL_METRIC_EXPORT_INTERVAL") or 60_000) / 1000


def choice(environ: Mapping[str, str], name: str) -> str:
    """The word that ``name`` holds, or its default."""
    value = environ.get(name, "").strip().lower()
    return value if value in _CHOICES[name] else _CHOICES[name][0]


def number(environ: Mapping[str, str], *names: str) -> int | None:
    """The first of ``names`` that holds a whole number above zero."""
    for name in names:
        value = environ.get(name, "").strip()
        if value.isdigit() and int(value) > 0:
            return int(value)
    return None


def is_off(environ: Mapping[str, str], signal: str) -> bool:
    """Whether ``OTEL_<SIGNAL>_EXPORTER`` says ``none``."""
    return environ.get(f"OTEL_{signal}_EXPORTER", "").strip().lower() == "none"
