"""The bound of an instrument's series, and who is to blame."""

from __future__ import annotations

import itertools

import pytest
from opentelemetry import metrics

from chegou_otel.testing import capture

_numbers = itertools.count()


def own(recorded):
    instrument = recorded.telemetry.runtime.metrics.counter("wide")
    return "wide", lambda labels: instrument.series(tuple(labels.items())).add(1)


def theirs(_recorded):
    name = f"their.wide.{next(_numbers)}"  # their totals outlive a setup()
    counter = metrics.get_meter("theirs").create_counter(name)
    return name, lambda labels: counter.add(1, labels)


@pytest.mark.parametrize("whose", [own, theirs])
def test_past_the_setting_the_rest_is_one_series_and_the_warning_names_the_culprit(whose, caplog):
    with capture(metrics_max_series=20) as recorded:
        name, add = whose(recorded)
        for user in range(50):
            add({"method": "GET" if user % 2 else "POST", "user": user, "ok": True})
        points = recorded.metrics[name].points
        for user in range(50, 60):
            add({"method": "GET", "user": user, "ok": True})
        later = recorded.metrics[name].points

    overflow = [[point.value for point in found if point.attributes == {"otel.metric.overflow": True}] for found in (points, later)]
    assert (len(points), len(later), overflow) == (21, 21, [[30], [40]])
    warnings = [record.getMessage() for record in caplog.records if name in record.getMessage()]
    assert len(warnings) == 1
    assert warnings[0].endswith("The attribute 'user' has the most values: 20")


@pytest.mark.parametrize("whose", [own, theirs])
def test_within_the_bound_nothing_is_said(whose, caplog):
    with capture(metrics_max_series=20) as recorded:
        name, add = whose(recorded)
        for user in range(20):
            add({"user": user})
        assert len(recorded.metrics[name].points) == 20

    assert not [record for record in caplog.records if name in record.getMessage()]


def test_a_bound_of_none_at_all_is_one_series(caplog):
    with capture(metrics_max_series=0) as recorded:
        instrument = recorded.telemetry.runtime.metrics.counter("wide")
        for user in range(3):
            instrument.series((("user", user),)).add(1)
        assert [point.value for point in recorded.metrics["wide"].points] == [1, 2]
