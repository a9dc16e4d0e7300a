"""What redaction costs: microseconds of CPU per call, median and best of several rounds.

python benchmarks/redaction.py            # a table
python benchmarks/redaction.py --json     # one JSON object, for comparing runs
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from itertools import count

from chegou_otel.redaction import Redactor

SQL = (
    'SELECT "orders_order"."id", "orders_order"."customer_id", "orders_order"."created_at" FROM "orders_order" '
    'WHERE "orders_order"."id" = %s LIMIT 21'
)
KEY_VALUES = (
    "GET /api/v1/pedidos/1234/itens status=200 user=joao took=35ms: request finished for customer 991 in 4 queries (12 ms) "
    "region=sa-east-1 attempt 1/3"
)
PROSE = (
    "Pedido 1234 enviado para a transportadora Rapidão em 35 ms, depois de 2 tentativas; próximo passo do fluxo agendado para hoje "
    "pelo operador joao"
)
NESTED = {"pedido": 1234, "cliente": {"nome": "Joao", "cpf": "529.982.247-25"}, "itens": [{"sku": "A-1", "qtd": 2}]}

redactor = Redactor()
fresh = count()


def cases() -> dict[str, Callable[[], object]]:
    """Name → call. Everything is called with the same redactor, so caches are warm where an application's would be."""
    text, url, value, sql = redactor.text, redactor.url, redactor.value, redactor.sql
    return {
        "text, clean: short log line": lambda: text("Pedido 1234 criado em 35 ms por joao"),
        "text, clean: prose of 143 characters": lambda: text(PROSE),
        "text, clean: key=value line of 146 characters": lambda: text(KEY_VALUES),
        "text, clean: path": lambda: text("/var/www/app/releases/20261122/static/js/app.bundle.js"),
        "text, clean: SQL template of 145 characters": lambda: text(SQL),
        "text, dirty: password=…": lambda: text("login failed for joao password=hunter2 from 10.0.0.1"),
        "text, dirty: a CPF": lambda: text("Cliente com CPF 529.982.247-25 atualizado em 12 ms"),
        "text, dirty: Authorization: Bearer …": lambda: text("sent Authorization: Bearer abc.def-123 to api.example.com"),
        "is_secret_key, known": lambda: redactor.is_secret_key("http.request.header.x_api_key"),
        "is_secret_key, new": lambda: redactor.is_secret_key(f"key_{next(fresh)}"),
        "value, short text": lambda: value("order.state", "enviado"),
        "value, nested": lambda: value("order", NESTED),
        "url, clean": lambda: url("https://api.example.com/v1/pedidos?page=1&size=20"),
        "url, dirty": lambda: url("https://user:pw@api.example.com/v1/pedidos?page=1&token=abc"),
        "sql, known": lambda: sql(SQL),
        "sql, new, with literals": lambda: sql(f"SELECT * FROM t WHERE a = 'x{next(fresh)}' AND b IN (1, 2, 3)"),
        "exception_message, clean": lambda: redactor.exception_message("Order matching query does not exist."),
        "exception_message, duplicate key": lambda: redactor.exception_message(
            'duplicate key value violates unique constraint "c"\nDETAIL:  Key (cpf)=(529.982.247-25) already exists.'
        ),
    }


def measure(call: Callable[[], object], calls: int, rounds: int) -> tuple[float, float]:
    """Median and best, in µs per call. CPU time of this thread: neighbours on the machine do not count."""
    found = []
    for _ in range(rounds):
        started = time.thread_time_ns()
        for _ in range(calls):
            call()
        found.append((time.thread_time_ns() - started) / calls / 1e3)
    return statistics.median(found), min(found)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    idle, _ = measure(lambda: None, options.calls, options.rounds)
    results = {}
    for name, call in cases().items():
        median, best = measure(call, options.calls, options.rounds)
        results[name] = {"median_us": round(median - idle, 2), "best_us": round(best - idle, 2)}
    if options.json:
        print(json.dumps({"python": sys.version.split()[0], "redaction": results}, ensure_ascii=False))
        return 0
    print(f"redaction, Python {sys.version.split()[0]}, µs per call (the empty call's {idle:.2f} subtracted)")
    for name, result in results.items():
        print(f"  {name:<48} {result['median_us']:8.2f}   best {result['best_us']:8.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
