"""Request metrics: stable names, stable buckets, few labels."""


def points(server, name):
    return {tuple(sorted(p.attributes.items())): p for p in server.telemetry.metrics[name].points}


def test_duration(server):
    for path in ("/users/1/", "/users/2/", "/fail/", "/nothing/"):
        server.call(path, headers={"User-Agent": "x"})
    server.spans(4)

    metric = server.telemetry.metrics["http.server.request.duration"]
    assert (metric.unit, metric.kind) == ("s", "histogram")
    common = {"http.request.method": "GET", "url.scheme": "http", "network.protocol.version": "1.1"}
    found = {(p.attributes.get("http.route"), p.attributes["http.response.status_code"]): p for p in metric.points}
    assert set(found) == {("/users/<int:pk>/", 200), ("/fail/", 500), (None, 404)}
    assert found["/users/<int:pk>/", 200].count == 2
    assert found["/users/<int:pk>/", 200].attributes == {**common, "http.route": "/users/<int:pk>/", "http.response.status_code": 200}
    assert found["/fail/", 500].attributes["error.type"] == "served_views.Broken"
    assert "error.type" not in found[None, 404].attributes
    assert found["/users/<int:pk>/", 200].bounds == (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)


def test_active_requests(server):
    server.span("/ok/")
    server.span("/ok/", "POST")

    metric = server.telemetry.metrics["http.server.active_requests"]
    assert {tuple(sorted(p.attributes.items())): p.value for p in metric.points} == {
        (("http.request.method", "GET"), ("url.scheme", "http")): 0,
        (("http.request.method", "POST"), ("url.scheme", "http")): 0,
    }
    assert not metric.monotonic


def test_own_error_status(server):
    server.span("/fail/returned/")

    (point,) = server.telemetry.metrics["http.server.request.duration"].points
    assert point.attributes["error.type"] == "503"
