"""One process: OTLP over HTTP and gRPC, the day files, the story page and Jaeger's query API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chegou_otel.local.days import Days
from chegou_otel.local.receiver import PATHS, GrpcServer, over_http, refuse
from chegou_otel.local.server import Application, Request, Response, Server
from chegou_otel.local.site import Site
from chegou_otel.local.store import Store
from chegou_otel.local.writer import Writer

if TYPE_CHECKING:
    from pathlib import Path

STOP_SECONDS: Final = 5.0


@dataclass(frozen=True, slots=True)
class Options:
    """Where to listen (0: a free port; `ui_port` None: the page lives on the HTTP port), and what to keep."""

    folder: Path
    host: str = "127.0.0.1"
    http_port: int = 4318
    ui_port: int | None = None
    keep_days: int = 7


class Backend:
    """The local backend. `start()` raises OSError, sqlite3.Error or ModuleNotFoundError when it cannot."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.writer = Writer(Days(options.folder), options.keep_days)
        self.http: Server | None = None
        self.ui: Server | None = None
        self.grpc: GrpcServer | None = None

    def start(self) -> None:
        """Listen over HTTP, and write."""
        options = self.options
        site = Site(Store(options.folder))
        self.writer.start()
        receive = over_http(self.writer)
        if options.ui_port is None:
            self.http = self.ui = Server(options.host, options.http_port, _both(receive, site.answer), refuse)
        else:
            self.http = Server(options.host, options.http_port, _both(receive, _nothing), refuse)
            self.ui = Server(options.host, options.ui_port, site.answer, refuse)
            self.ui.start()
        self.http.start()

    def start_grpc(self, port: int) -> None:
        """Listen over gRPC too."""
        self.grpc = GrpcServer(self.options.host, port, self.writer)
        self.grpc.start()

    def stop(self) -> None:
        """Answer what is under way, write what was taken, close."""
        if self.grpc:
            self.grpc.stop(STOP_SECONDS)
        for server in {self.http, self.ui} - {None}:
            if server:
                server.stop(STOP_SECONDS)
        self.writer.stop(STOP_SECONDS)


def _both(receive: Application, site: Application) -> Application:
    return lambda request: receive(request) if request.path in PATHS else site(request)


def _nothing(request: Request) -> Response:
    return refuse(404, "OTLP is received at " + ", ".join(PATHS), request.media_type)
