from django.http import HttpResponse
from django.urls import path


def enqueue(request):
    import django_rq

    django_rq.get_queue("default").enqueue("hub_jobs.ok", "x")
    return HttpResponse("ok")


def inner(request):
    import django_rq

    from chegou_otel import use_correlation_id

    with use_correlation_id("import-0001"):
        django_rq.get_queue("default").enqueue("hub_jobs.ok", "x")
    return HttpResponse("ok")


def task(request):
    import web_tasks

    return HttpResponse(web_tasks.greet.enqueue("x").id)


def later(request):
    from datetime import timedelta

    import web_tasks
    from django.utils import timezone

    return HttpResponse(web_tasks.greet.using(run_after=timezone.now() + timedelta(hours=1)).enqueue("x").id)


urlpatterns = [path("enqueue/", enqueue), path("inner/", inner), path("task/", task), path("later/", later)]
