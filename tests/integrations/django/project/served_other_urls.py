import served_views as views
from django.urls import path

urlpatterns = [path("other/<int:number>/", views.ok)]
