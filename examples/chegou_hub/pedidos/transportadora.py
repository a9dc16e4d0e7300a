"""Client of the carrier's API."""

from decimal import Decimal

import requests
from django.conf import settings
from django.core.cache import cache

TIMEOUT = 5


def cotar_frete(cep: str) -> Decimal:
    """The price to a postal code: from the cache, or else from the carrier."""
    chave = f"frete:{cep}"
    if (guardado := cache.get(chave)) is not None:
        return Decimal(guardado)
    resposta = requests.get(f"{settings.LOGISTICA_URL}/frete", params={"cep": cep}, timeout=TIMEOUT)
    resposta.raise_for_status()
    valor = str(resposta.json()["valor"])
    cache.set(chave, valor, timeout=300)
    return Decimal(valor)


def agendar_coleta(pedido_id: int) -> str:
    """Book a pick-up and return its protocol number; the carrier answers 503 now and then."""
    resposta = requests.post(f"{settings.LOGISTICA_URL}/coletas", json={"pedido": pedido_id}, timeout=TIMEOUT)
    resposta.raise_for_status()
    return str(resposta.json()["protocolo"])
