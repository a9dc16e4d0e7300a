"""The hub's addresses."""

from django.urls import include, path
from pedidos import views

urlpatterns = [
    path("", views.inicio, name="inicio"),
    path("pedidos/", include("pedidos.urls")),
]
