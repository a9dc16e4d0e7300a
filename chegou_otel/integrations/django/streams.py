"""Streaming content, made under its request: spans are the server span's children, log lines carry the correlation ID."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from chegou_otel._context import attach, get_current
from chegou_otel._guard import guarded
from chegou_otel.correlation import reset

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from opentelemetry.context import Context

    from chegou_otel.integrations.django.exchange import Exchange


def wrap_stream(exchange: Exchange, response: Any) -> None:
    """Put the response's iterator, which Django reads by whatever way the content is asked for, into the request's context."""
    iterator = getattr(response, "_iterator", None)
    if iterator is not None:
        response._iterator = AsyncStream(exchange, iterator) if response.is_async else Stream(exchange, iterator)


class _Content:
    """What both kinds share. Between two chunks nothing of ours is current, and what the content made current is kept for it."""

    __slots__ = ("_context", "_exchange", "_iterator")

    def __init__(self, exchange: Exchange, iterator: Any) -> None:
        self._exchange = exchange
        self._iterator = iterator
        self._context: Context = exchange.context

    @guarded
    def _enter(self) -> Any:
        self._exchange.disconnected = self._exchange.closes  # until the end is reached, whoever closes breaks off
        return attach(self._context)

    @guarded
    def _leave(self, token: Any) -> None:
        if token is not None:
            try:
                self._context = get_current()
            finally:
                reset(token)

    @guarded
    def _fail(self, error: BaseException) -> None:
        self._exchange.disconnected = False
        if not isinstance(error, StopIteration | StopAsyncIteration):
            self._exchange.stream_failed(error)


class Stream(_Content):
    """A synchronous iterator."""

    __slots__ = ()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        token = self._enter()
        try:
            return next(self._iterator)
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            self._leave(token)


class AsyncStream(_Content):
    """An asynchronous iterator."""

    __slots__ = ()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        token = self._enter()
        try:
            return await self._iterator.__anext__()
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            self._leave(token)
