"""Django's own settings for its test suite, with a runner that writes every outcome down."""

from typing import Any

from django.test.runner import DiscoverRunner
from suite_outcomes import RecordingResult, record
from test_sqlite import *  # noqa: F403  (Django's tests/test_sqlite.py)


class RecordingRunner(DiscoverRunner):
    def get_resultclass(self) -> type[RecordingResult]:
        return RecordingResult

    def run_suite(self, suite: Any, **kwargs: Any) -> Any:
        result = super().run_suite(suite, **kwargs)
        record(finished=len(result.failures) + len(result.errors))
        return result


TEST_RUNNER = "suite_settings.RecordingRunner"
