"""The addresses under /pedidos/."""

from django.urls import path

from pedidos import views

app_name = "pedidos"
urlpatterns = [
    path("", views.pedidos, name="lista"),
    path("<int:pk>/", views.detalhe, name="detalhe"),
    path("relatorio/", views.relatorio, name="relatorio"),
    path("painel/", views.painel, name="painel"),
    path("quebrado/", views.quebrado, name="quebrado"),
]
