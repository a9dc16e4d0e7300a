"""The measured application: one view that does what views do, one that does nothing, and a job."""

import functools
import logging

import redis
import requests
from django.apps import AppConfig
from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.urls import path

logger = logging.getLogger("shop")


class App(AppConfig):
    """So that Django finds the models."""

    name = "shop"
    path = "."


@functools.cache
def cache() -> "redis.Redis":
    """One client with its connection pool."""
    return redis.Redis(port=settings.REDIS_PORT)


@functools.cache
def partner() -> requests.Session:
    """One session with its connection pool."""
    return requests.Session()


def heavy(request: HttpRequest, number: int) -> JsonResponse:
    """6 SQL statements, 2 Redis commands, 1 HTTP call, 5 log records."""
    from models import Customer, Order

    logger.info("order %s is looked at", number)
    customer = Customer.objects.get(pk=number % 50 + 1)
    orders = list(Order.objects.filter(customer=customer).order_by("-pk")[:10])
    logger.info("customer %s has %d recent orders", customer.name, len(orders))
    total = Order.objects.filter(customer=customer).count()
    open_orders = Order.objects.filter(customer=customer, state="open").exists()
    first = Order.objects.filter(customer=customer).values("pk", "state").first()
    Order.objects.filter(pk=number % 500 + 1).update(state="seen")
    logger.info("state of order %s written", number)
    visits = cache().incr(f"visits:{customer.pk}")
    cache().set(f"last:{customer.pk}", number, ex=600)
    rate = partner().get(settings.PARTNER_URL, timeout=10).json()["rate"]
    logger.info("rate for %s is %.2f", customer.name, rate)
    answer = {"customer": customer.name, "orders": [order.pk for order in orders], "total": total, "rate": rate, "visits": visits}
    logger.info("answering %d orders", len(orders), extra={"customer_id": customer.pk})
    return JsonResponse({**answer, "open": open_orders, "first": first})


def light(request: HttpRequest) -> JsonResponse:
    """JSON, nothing else."""
    return JsonResponse({"status": "ok"})


def job(number: int) -> int:
    """Two log records and a little work."""
    logger.info("job %d begins", number)
    result = sum(range(number % 1000))
    logger.info("job %d ends", number)
    return result


urlpatterns = [path("orders/<int:number>/", heavy), path("ping/", light)]
