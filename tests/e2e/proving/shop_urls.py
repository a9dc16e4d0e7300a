import records
from django.http import HttpResponse
from django.urls import path


def buy(request):
    """SQL, spans and logs, each noted once it was recorded."""
    from django.db import connection

    for _ in range(10):
        records.log()
        records.span(lambda: connection.cursor().execute("SELECT 1"))
    return HttpResponse("bought")


urlpatterns = [path("buy/", buy)]
