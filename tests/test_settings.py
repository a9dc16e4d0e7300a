"""Settings: arguments, environment, defaults, and what is said about mistakes."""

from __future__ import annotations

import dataclasses
import enum

import pytest

from chegou_otel import _environment, _settings
from chegou_otel._settings import Options, Settings, load


def test_an_argument_stands_above_the_environment_and_that_above_the_default():
    settings, warnings = load({"service_name": "argued"}, {"OTEL_SERVICE_NAME": "told", "CHEGOU_OTEL_ENVIRONMENT": "production"})

    assert (settings.service_name, settings.environment, settings.traces, warnings) == ("argued", "production", True, [])


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("CHEGOU_OTEL_TRACES", "off", "traces", False),
        ("CHEGOU_OTEL_PROPAGATE_TO", "a.example, *.internal,", "propagate_to", ("a.example", "*.internal")),
        ("CHEGOU_OTEL_EXIT_TIMEOUT", "1.5", "exit_timeout", 1.5),
        ("CHEGOU_OTEL_SPOOL_MAX_BYTES", "1024", "spool_max_bytes", 1024),
        ("CHEGOU_OTEL_DJANGO", "upstream", "django", "upstream"),
        ("CHEGOU_OTEL_RESPONSE_HEADER", "", "response_header", ""),
    ],
)
def test_environment_values_are_read_by_type(variable, text, name, value):
    settings, warnings = load({}, {variable: text})

    assert (getattr(settings, name), warnings) == (value, [])


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("CHEGOU_OTEL_TRACES", "perhaps"),
        ("CHEGOU_OTEL_EXIT_TIMEOUT", "soon"),
        ("CHEGOU_OTEL_DJANGO", "theirs"),
        ("CHEGOU_OTEL_EXIT_TIMEOUT", "-1"),
    ],
)
def test_a_wrong_environment_value_warns_and_falls_back(variable, text):
    settings, warnings = load({}, {variable: text})

    assert settings == Settings()
    assert len(warnings) == 1
    assert variable in warnings[0]


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"servce_name": "x"}, TypeError, "did you mean 'service_name'"),
        ({"nonsense": 1}, TypeError, "the settings are service_name"),
        ({"traces": "yes"}, TypeError, "traces takes bool, not 'yes'"),
        ({"propagate_to": "one.example"}, TypeError, "propagate_to takes a list of str"),
        ({"propagate_to": [1]}, TypeError, "propagate_to takes a list of str"),
        ({"django": "theirs"}, ValueError, "'own' | 'upstream' | 'off'"),
        ({"exit_timeout": -1}, ValueError, "not negative"),
        ({"exit_timeout": True}, TypeError, "exit_timeout takes float"),
    ],
)
def test_a_wrong_argument_raises_and_says_what_is_right(arguments, error, said):
    with pytest.raises(error) as raised:
        load(arguments, {})

    assert said in str(raised.value).replace("a list of strings", "a list of str")


def test_setup_s_signature_and_the_settings_are_the_same_list():
    assert set(Options.__annotations__) == {setting.name for setting in dataclasses.fields(Settings)} - {"service_name"}


def test_every_setting_has_a_variable_and_a_help_text():
    for setting in dataclasses.fields(Settings):
        assert setting.metadata["env"], setting.name
        assert len(setting.metadata["help"]) > 10, setting.name
    assert len({setting.metadata["env"] for setting in dataclasses.fields(Settings)}) == len(dataclasses.fields(Settings))
    assert set(_settings.shapes()) == {setting.name for setting in dataclasses.fields(Settings)}


def test_a_variable_that_is_set_and_not_honoured_is_named_with_the_reason(monkeypatch):
    monkeypatch.setitem(_environment.VARIABLES, "OTEL_LATER", _environment.Variable("not yet", "soon"))
    found = _environment.warnings({"OTEL_BSP_MAX_QUEUE_SIZE": "5", "OTEL_LATER": "x", "OTEL_SERVICE_NAME": "fine"})

    assert len(found) == 2
    assert any("OTEL_BSP_MAX_QUEUE_SIZE='5' is not honoured: there is no batch processor" in line for line in found)
    assert "OTEL_LATER='x' is not honoured yet: soon" in found


def test_a_variable_that_asks_for_what_is_done_anyway_is_no_warning():
    assert _environment.warnings({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_SEMCONV_STABILITY_OPT_IN": "http,database"}) == []


def test_the_sdk_s_own_variables_are_all_in_the_table():
    """A variable that the SDK knows and we do not mention would be silence."""
    from opentelemetry.sdk import environment_variables as known

    names = {value for key, value in vars(known).items() if key.startswith("OTEL_") and isinstance(value, str)}
    forgotten = {name for name in names if not name.startswith("OTEL_PYTHON_")} - set(_environment.VARIABLES)
    assert forgotten == set()


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_time_is_a_number_of_seconds(value):
    settings, warnings = load({}, {"CHEGOU_OTEL_EXIT_TIMEOUT": value})

    assert (settings.exit_timeout, len(warnings)) == (2.0, 1)


def test_an_exporter_that_is_not_there_is_named():
    found = _environment.warnings({"OTEL_TRACES_EXPORTER": "console", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "otlp"})

    assert found == ["OTEL_TRACES_EXPORTER='console' is ignored (use otlp or none); what is recorded is sent by OTLP"]


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("CHEGOU_OTEL_PROPOGATE_TO", "did you mean CHEGOU_OTEL_PROPAGATE_TO?"),
        ("CHEGOU_OTEL_TRACE", "did you mean CHEGOU_OTEL_TRACES?"),
        ("CHEGOU_OTEL_XYZZY", "is no setting and is ignored"),
    ],
)
def test_a_misspelt_variable_is_said_with_the_nearest_one(variable, said):
    settings, warnings = load({}, {variable: "x", "OTHER_OTEL_TRACE": "x"})

    assert settings == Settings()
    assert len(warnings) == 1
    assert warnings[0].startswith(variable)
    assert said in warnings[0]


def test_variables_that_others_read_are_not_misspelt():
    assert load({}, {"CHEGOU_OTEL_QUERY_URL": "http://x", "CHEGOU_OTEL_RUN": "1", "CHEGOU_OTEL_PYTHON": "x"})[1] == []


@pytest.mark.parametrize(
    ("text", "patterns"),
    [
        ('["[0-9]{3,5}-X", "b"]', ("[0-9]{3,5}-X", "b")),
        ("[0-9]+, b", ("[0-9]+", "b")),
        ("a,b", ("a", "b")),
    ],
)
def test_a_pattern_with_a_comma_comes_in_a_json_list(text, patterns):
    settings, warnings = load({}, {"CHEGOU_OTEL_REDACT_PATTERNS": text})

    assert (settings.redact_patterns, warnings) == (patterns, [])


@pytest.mark.parametrize("text", ['["a", 5]', '["a"', '["a"] b'])
def test_a_broken_json_list_warns(text):
    settings, warnings = load({}, {"CHEGOU_OTEL_REDACT_PATTERNS": text})

    assert settings == Settings()
    assert len(warnings) == 1


@pytest.mark.parametrize("name", ["OTEL_METRIC_EXPORT_INTERVAL", "OTEL_SPAN_LINK_COUNT_LIMIT", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"])
def test_a_number_that_is_none_warns_and_the_default_holds(name):
    for wrong in ("soon", "-5", "0", "1.5"):
        (warning,) = _environment.warnings({name: wrong})
        assert name in warning
    assert _environment.warnings({name: "5"}) == []
    assert _environment.export_interval({"OTEL_METRIC_EXPORT_INTERVAL": "soon"}) == 60


def test_variables_that_take_a_word_say_which_words():
    (warning,) = _environment.warnings({"OTEL_METRICS_EXEMPLAR_FILTER": "sometimes", "OTEL_SERVICE_NAME": "fine"})

    assert warning == (
        "OTEL_METRICS_EXEMPLAR_FILTER='sometimes' is ignored (use trace_based or always_on or always_off); trace_based holds"
    )
    assert _environment.warnings({"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "Delta"}) == []


def test_arguments_are_plain_values_however_they_are_given():
    class Path(enum.StrEnum):
        ADMIN = "/admin/"

    given = _settings.checked({"excluded_paths": [Path.ADMIN], "redact_keys": (key for key in ("a", "b"))})

    assert given == {"excluded_paths": ("/admin/",), "redact_keys": ("a", "b")}
    assert type(given["excluded_paths"][0]) is str
