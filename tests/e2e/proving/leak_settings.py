"""A Django project that has a secret in every place that a request has. Everything that can be switched on is on."""

import os

SECRET_KEY = "only-for-tests"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "leak_urls"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["LEAK_DATABASE"]}}
REDIS_URL = f"redis://127.0.0.1:{os.environ['LEAK_REDIS_PORT']}/0"
CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}}
SESSION_ENGINE = "django.contrib.sessions.backends.cache"
USE_TZ = True
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"null": {"class": "logging.NullHandler"}, "console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["null"], "level": "DEBUG"},
    "loggers": {"django.db.backends": {"level": "DEBUG"}, "django.request": {"handlers": ["console"]}},
}

import chegou_otel  # noqa: E402

HEADERS = ["authorization", "cookie", "x-api-key", "x-note", "referer", "set-cookie", "x-auth-token"]
chegou_otel.setup("leak", sql_comment=True, capture_request_headers=HEADERS, capture_response_headers=HEADERS, client_address=True)
