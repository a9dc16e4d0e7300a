"""Spans, metrics and log records: made by the OpenTelemetry API, encoded to OTLP once."""
