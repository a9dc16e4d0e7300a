"""Background jobs."""

import logging

import django
from django.apps import apps

if not apps.ready:  # `rq worker` imports this module in its work-horse, where nobody has loaded Django yet
    django.setup()

from pedidos.models import Coleta, Pedido
from pedidos.transportadora import agendar_coleta

logger = logging.getLogger("pedidos.jobs")


def sincronizar_pedido(pedido_id: int) -> str:
    """Tell the carrier about an order; a failure is tried again by RQ."""
    logger.info("🔄 [JOB] Sincronizando pedido %s", pedido_id)
    pedido = Pedido.objects.get(pk=pedido_id)
    try:
        protocolo = agendar_coleta(pedido.pk)
    except Exception:
        logger.exception("❌ [JOB] Transportadora recusou o pedido %s", pedido_id)
        raise
    Coleta.objects.get_or_create(pedido=pedido, defaults={"protocolo": protocolo})
    Pedido.objects.filter(pk=pedido.pk).update(status=Pedido.Status.SINCRONIZADO)
    logger.info("✅ [JOB] Pedido %s sincronizado - protocolo %s", pedido_id, protocolo)
    return protocolo
