"""The user on the span, without asking for it."""

import pytest


@pytest.fixture
def cookies():
    """The cookie of a session in which user 7 is logged in."""
    from django.contrib.auth.models import User
    from django.contrib.sessions.backends.signed_cookies import SessionStore

    store = SessionStore()
    store["_auth_user_id"] = "7"
    store["_auth_user_backend"] = "served_middleware.OneUser"
    store["_auth_user_hash"] = User(pk=7, password="!").get_session_auth_hash()
    store.save()
    return {"Cookie": f"sessionid={store.session_key}"}


def test_user_that_the_view_asked_for(server, cookies):
    span = server.span("/whoami/", headers=cookies)

    assert server.answer.body == b"7"
    assert span.attributes["user.id"] == "7"


def test_async_user(asgi, cookies):
    import django

    if django.VERSION < (5, 0):
        pytest.skip("request.auser() came with Django 5.0")
    assert asgi.span("/awhoami/", headers=cookies).attributes["user.id"] == "7"


def test_user_that_nobody_asked_for(server, cookies):
    """Looking would read the session, and make the page vary by cookie."""
    span = server.span("/ok/", headers=cookies)

    assert "user.id" not in span.attributes
    assert "Cookie" not in server.answer.headers.get("Vary", "")


def test_anonymous(server):
    assert "user.id" not in server.span("/whoami/").attributes


def test_user_put_there_by_the_application(server):
    assert server.span("/assigned/").attributes["user.id"] == "9"


def test_hashed(serve, cookies):
    with serve(user="hash") as server:
        first, second = server.span("/whoami/", headers=cookies), server.span("/assigned/")

    assert len(first.attributes["user.id"]) == 16
    assert first.attributes["user.id"] not in ("7", second.attributes["user.id"])


def test_hash_is_stable(serve, cookies):
    seen = set()
    for _ in range(2):
        with serve(user="hash") as server:
            seen.add(server.span("/whoami/", headers=cookies).attributes["user.id"])
    assert len(seen) == 1


def test_off(serve, cookies):
    with serve(user="off") as server:
        assert "user.id" not in server.span("/whoami/", headers=cookies).attributes
