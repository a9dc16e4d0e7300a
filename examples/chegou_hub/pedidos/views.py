"""The hub's views: plain Django, with nothing of observability in them."""

import asyncio
import json
import logging
from collections.abc import Iterator
from decimal import Decimal

import django_rq
from django.core.cache import cache
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_http_methods
from rq import Retry

from pedidos.jobs import sincronizar_pedido
from pedidos.models import Pedido
from pedidos.transportadora import cotar_frete

logger = logging.getLogger("pedidos")


@require_GET
def inicio(_request: HttpRequest) -> HttpResponse:
    """A word of welcome."""
    return HttpResponse("📦 Chegou Hub\n", content_type="text/plain; charset=utf-8")


@csrf_exempt
@require_http_methods(["GET", "HEAD", "POST"])
def pedidos(request: HttpRequest) -> JsonResponse:
    """GET: the latest orders. POST: take one, price its freight, and hand it to the worker."""
    if request.method != "POST":
        ultimos = Pedido.objects.order_by("-pk").values("id", "cliente", "status")[:20]
        return JsonResponse({"pedidos": list(ultimos)})
    dados = json.loads(request.body)
    frete = cotar_frete(dados["cep"])
    with transaction.atomic():
        pedido = Pedido.objects.create(cliente=dados["cliente"], cep=dados["cep"], valor=Decimal(str(dados["valor"])), frete=frete)
    hoje = _contar()
    logger.info("📦 Pedido %s recebido - frete R$ %s", pedido.pk, frete, extra={"pedido_id": pedido.pk, "pedidos_hoje": hoje})
    job = django_rq.get_queue("default").enqueue(sincronizar_pedido, pedido.pk, retry=Retry(max=2))
    return JsonResponse({"id": pedido.pk, "frete": str(frete), "job": job.id}, status=201)


def _contar() -> int:
    cache.add("pedidos:hoje", 0, timeout=86_400)
    return int(cache.incr("pedidos:hoje"))


@require_GET
def detalhe(_request: HttpRequest, pk: int) -> JsonResponse:
    """One order, with its pick-up once there is one."""
    pedido = get_object_or_404(Pedido.objects.select_related("coleta"), pk=pk)
    coleta = getattr(pedido, "coleta", None)
    return JsonResponse({"id": pedido.pk, "status": pedido.status, "protocolo": coleta and coleta.protocolo})


@require_GET
def relatorio(_request: HttpRequest) -> StreamingHttpResponse:
    """A CSV of all orders, sent line by line while the database is being read."""

    def linhas() -> Iterator[str]:
        yield "id;cliente;valor;status\n"
        for pedido in Pedido.objects.order_by("pk").iterator(chunk_size=100):
            yield f"{pedido.pk};{pedido.cliente};{pedido.valor};{pedido.status}\n"
        logger.info("📊 Relatório de pedidos enviado")

    return StreamingHttpResponse(linhas(), content_type="text/csv; charset=utf-8")


async def painel(_request: HttpRequest) -> JsonResponse:
    """Two questions to the database at a time, in an async view."""
    total, sincronizados = await asyncio.gather(Pedido.objects.acount(), Pedido.objects.filter(status=Pedido.Status.SINCRONIZADO).acount())
    return JsonResponse({"total": total, "sincronizados": sincronizados})


@require_GET
def quebrado(_request: HttpRequest) -> HttpResponse:
    """A view with a bug: what an error looks like in the story."""
    logger.warning("⚠️ Cálculo de comissão sem pedidos")
    comissao = 100 / Pedido.objects.filter(cliente="ninguém").count()
    return HttpResponse(f"{comissao}\n")
