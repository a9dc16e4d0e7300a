"""What telemetry costs: nothing, upstream OpenTelemetry and chegou-otel side by side. `docs/benchmarks.md` says how it is measured."""
