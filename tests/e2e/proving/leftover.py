"""For gunicorn: what a request leaves behind in the thread that served it."""

import os


def post_request(worker, req, environ, resp):
    from opentelemetry.context import get_current

    import chegou_otel

    with open(os.environ["SHOP_NOTES"], "a") as notes:
        notes.write(f"left {chegou_otel.get_correlation_id()} {dict(get_current())}\n")
