import served_views as views
from django.urls import include, path, re_path

app_name = "shop"
inner = ([path("items/<slug:item>/", views.ok, name="item")], "inner")
urlpatterns = [
    path("", views.ok, name="index"),
    path("orders/<int:pk>/", views.Orders.as_view(), name="order"),
    path("deep/", include(inner, namespace="deep")),
    re_path(r"^archive/(?P<year>[0-9]{4})/$", views.ok, name="archive"),
]
