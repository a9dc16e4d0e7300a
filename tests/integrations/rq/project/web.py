"""One request after another through the WSGI application, as a server does: ``web.py /enqueue/ …``."""

from __future__ import annotations

import os
import sys
from wsgiref.util import setup_testing_defaults

os.environ["DJANGO_SETTINGS_MODULE"] = "web_settings"

from django.core.wsgi import get_wsgi_application  # noqa: E402

application = get_wsgi_application()
for place in sys.argv[1:]:
    environ = {"PATH_INFO": place}
    setup_testing_defaults(environ)
    said = []
    response = application(environ, lambda status, headers, exc_info=None, said=said: said.append(status))
    try:
        body = b"".join(response)
    finally:
        response.close()
    print(place, *said, body)
    assert said == ["200 OK"], (said, body)
