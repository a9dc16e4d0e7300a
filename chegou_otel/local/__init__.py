"""The local backend: an OTLP receiver, SQLite day files, and the story of an ID. An instrumented application never loads it."""
