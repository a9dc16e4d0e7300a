"""The user on the span, without asking for it: who was not looked up by the application is not looked up by us.

Evaluating ``request.user`` reads the session, queries the database and makes Django add ``Vary: Cookie``.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from chegou_otel.signals.encoding import Safe

if TYPE_CHECKING:
    from collections.abc import Callable

_KEY_SIZE: Final = 64
_LAZY: Final = frozenset({"SimpleLazyObject", "LazyObject"})


def reader(mode: str) -> Callable[[Any], str | None] | None:
    """What reads a request's user, by the setting ``user``: ``id``, ``hash`` or ``off``."""
    if mode == "off":
        return None
    return user_id if mode == "id" else hashed_user_id


def user_id(request: Any) -> str | None:
    """The primary key of the request's user, when the application has asked for the user; ``None`` for anonymous ones."""
    held = request.__dict__
    user = held.get("_cached_user") or held.get("_acached_user") or _assigned(held.get("user"))
    key = getattr(user, "pk", None)
    if key is None:
        return None
    # A number needs no redaction; a natural key (an e-mail address, a CPF) does.
    return Safe(key) if type(key) is int else str(key)


def _assigned(user: Any) -> Any:
    """A user that somebody put on the request (token authentication), unless it is still to be looked up."""
    if user is None:
        return None
    if any(base.__name__ in _LAZY for base in type(user).__mro__):
        held = object.__getattribute__(user, "__dict__").get("_wrapped")
        return held if getattr(type(held), "pk", None) is not None else None
    return user


def hashed_user_id(request: Any) -> str | None:
    """The same, as a keyed hash: equal for one user in all processes of the project, and not to be turned back by counting."""
    found = user_id(request)
    if found is None:
        return None
    from django.conf import settings

    key = str(settings.SECRET_KEY).encode()
    key = key if len(key) <= _KEY_SIZE else blake2b(key).digest()
    return Safe(blake2b(found.encode(), digest_size=8, key=key).hexdigest())
