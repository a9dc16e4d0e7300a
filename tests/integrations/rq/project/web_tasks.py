"""A task as `django.tasks` knows it."""

from django_tasks import task


@task()
def greet(name):
    import hub_jobs

    return hub_jobs.ok(name)
