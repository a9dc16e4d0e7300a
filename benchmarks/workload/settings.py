"""Django settings of the measured application. With BENCH_VARIANT=ours they end as the documentation says: with `setup()`."""

import os

SECRET_KEY = "benchmarks only"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "shop"
INSTALLED_APPS = ["django.contrib.contenttypes", "shop.App"]
MIDDLEWARE = ["django.middleware.security.SecurityMiddleware", "django.middleware.common.CommonMiddleware"]
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ["BENCH_DATABASE"],
        "CONN_MAX_AGE": None,
        # Time on the disk is no telemetry, and differs from machine to machine.
        "OPTIONS": {"init_command": "PRAGMA synchronous=OFF"},
    }
}
REDIS_PORT = int(os.environ["BENCH_REDIS"])
# One for each variant, as for each application: RQ's gauges tell of every queue in it.
REDIS_DATABASE = int(os.environ["BENCH_REDIS_DATABASE"])
PARTNER_URL = f"http://127.0.0.1:{os.environ['BENCH_PARTNER']}/rates?from=USD&to=BRL"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    # Every application writes its log lines somewhere; here it is a file that keeps nothing.
    "handlers": {"lines": {"class": "logging.FileHandler", "filename": os.devnull, "formatter": "line"}},
    "root": {"level": "INFO", "handlers": ["lines"]},
}

if os.environ.get("BENCH_VARIANT") == "ours":
    import time

    _start = time.perf_counter(), time.process_time()
    import chegou_otel

    _imported = time.perf_counter(), time.process_time()
    chegou_otel.setup()
    _done = time.perf_counter(), time.process_time()
    BENCH_TIMES = {"import": (_start, _imported), "setup": (_imported, _done)}
