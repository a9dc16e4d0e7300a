"""What the tests of metrics share: a registry whose frames are kept, and what they say."""

from __future__ import annotations

from chegou_otel.signals.aggregation import Aggregation
from chegou_otel.signals.metrics import Registry
from chegou_otel.testing import decode


class Kept:
    """Takes frames; refuses them while ``full``."""

    def __init__(self, **aggregation):
        self.frames = []
        self.full = False
        self.registry = Registry(self.append, "", Aggregation(**aggregation))

    def append(self, _kind, scope, payload, _priority):
        if not self.full:
            self.frames.append((scope.name, payload))
        return not self.full

    def collect(self):
        """What a collection tells, by name."""
        before = len(self.frames)
        self.registry.collect()
        return {metric.name: metric for metric in self.told(before)}

    def told(self, since=0):
        return [decode.metric(payload, scope) for scope, payload in self.frames[since:]]
