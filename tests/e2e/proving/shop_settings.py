"""A small Django project whose processes are killed. Also a configuration module for ``rq worker -c``."""

import atexit
import json
import os
from multiprocessing import util

SECRET_KEY = "only-for-tests"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "shop_urls"
INSTALLED_APPS = []
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["SHOP_DATABASE"]}}
REDIS_URL = f"redis://127.0.0.1:{os.environ['SHOP_REDIS_PORT']}/0"
WSGI_APPLICATION = "shop_wsgi.application"
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"told": {"format": "%(process)d %(name)s %(message)s"}},
    "handlers": {"null": {"class": "logging.NullHandler"}, "console": {"class": "logging.StreamHandler", "formatter": "told"}},
    "loggers": {"shop": {"handlers": ["null"], "propagate": False}, "chegou_otel": {"handlers": ["console"], "level": "INFO"}},
}


def tell_ledger():
    """At exit, after everything was sent: what became of it, one line per process."""
    line = {"pid": os.getpid()} | {
        name: {**vars_of(account), "held": account.held} for name, account in telemetry.runtime.recorder.ledger().items()
    }
    with open(os.environ["SHOP_LEDGERS"], "a") as file:
        file.write(json.dumps(line) + "\n")


def vars_of(account):
    return {name: getattr(account, name) for name in ("created", "delivered", "rejected", "ambiguous", "dropped")}


if "SHOP_SENTRY_DSN" in os.environ:
    import sentry_sdk

    sentry_sdk.init(os.environ["SHOP_SENTRY_DSN"], traces_sample_rate=1.0, send_default_pii=True, shutdown_timeout=20)

if "SHOP_NO_SETUP" not in os.environ:
    import chegou_otel

    atexit.register(tell_ledger)  # before ours, so it runs after ours
    # The same in the workers of RQ's pool, for which `multiprocessing` clears what `atexit` holds.
    util.register_after_fork(tell_ledger, lambda tell: util.Finalize(None, tell, exitpriority=-200))
    telemetry = chegou_otel.setup("shop", exit_timeout=float(os.environ.get("SHOP_EXIT_TIMEOUT", "10")))
