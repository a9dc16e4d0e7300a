"""A stub of the carrier's API, for machines that cannot reach a real one: `python logistica.py [port]`.

GET /frete?cep=…      the price
POST /coletas         books a pick-up: the first try for each order answers 503, as the real one does on a bad day
GET /recebido         the headers that callers sent, as JSON: what a third party gets to see
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

HEADERS_KEPT = 200


class Logistica(BaseHTTPRequestHandler):
    """Answers like the carrier."""

    protocol_version = "HTTP/1.1"
    tentativas: ClassVar[dict[int, int]] = {}
    recebido: ClassVar[list[dict[str, str]]] = []

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/frete":
            self._lembrar()
            cep = parse_qs(url.query).get("cep", ["0"])[0]
            digitos = [int(c) for c in cep if c.isdigit()] or [0]
            self._responder(200, {"cep": cep, "valor": f"{12 + sum(digitos) / 2:.2f}"})
        elif url.path == "/recebido":
            self._responder(200, self.recebido[-HEADERS_KEPT:])
        else:
            self._responder(404, {"erro": "não existe"})

    def do_POST(self) -> None:
        corpo = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
        self._lembrar()
        if urlsplit(self.path).path != "/coletas":
            self._responder(404, {"erro": "não existe"})
            return
        pedido = int(corpo.get("pedido", 0))
        tentativa = self.tentativas[pedido] = self.tentativas.get(pedido, 0) + 1
        if tentativa == 1:
            self._responder(503, {"erro": "tente de novo"})
        else:
            self._responder(201, {"protocolo": f"COL-{pedido:06d}"})

    def _lembrar(self) -> None:
        self.recebido.append({"method": self.command, "path": self.path, **{k.lower(): v for k, v in self.headers.items()}})
        del self.recebido[:-HEADERS_KEPT]

    def _responder(self, status: int, corpo: object) -> None:
        dados = json.dumps(corpo).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(dados)))
        self.end_headers()
        self.wfile.write(dados)


if __name__ == "__main__":
    porta = int(sys.argv[1]) if len(sys.argv) > 1 else 8090
    servidor = ThreadingHTTPServer(("127.0.0.1", porta), Logistica)
    print(f"logistica http://127.0.0.1:{servidor.server_address[1]}", flush=True)
    servidor.serve_forever()
