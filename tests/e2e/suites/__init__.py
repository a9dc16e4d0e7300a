"""Django's and RQ's own test suites, once bare and once with `chegou_otel.setup()` active: outcomes have to agree, test by test.

python -m tests.e2e.suites django|rq [--compare | --without | --with | --control] [--json FILE] [--only LABEL ...]
"""
