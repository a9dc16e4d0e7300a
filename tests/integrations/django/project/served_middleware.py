"""A middleware that does what its request asks for, and a backend with one user."""

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.contrib.auth.backends import BaseBackend
from django.contrib.auth.models import User
from django.http import HttpResponse


class Odd:
    sync_capable = async_capable = True

    def __init__(self, get_response):
        self.get_response = get_response
        if iscoroutinefunction(get_response):
            markcoroutinefunction(self)

    def __call__(self, request):
        if iscoroutinefunction(self.get_response):
            return self.later(request)
        self.before(request)
        return self.after(request, self.get_response(request))

    async def later(self, request):
        self.before(request)
        return self.after(request, await self.get_response(request))

    def before(self, request):
        wish = request.META.get("HTTP_X_WISH")
        if wish == "fail-before":
            raise RuntimeError("the middleware failed")
        if wish == "urlconf":
            request.urlconf = "served_other_urls"

    def after(self, request, response):
        wish = request.META.get("HTTP_X_WISH")
        if wish == "fail-after":
            raise RuntimeError("the middleware failed")
        if wish == "excuse":
            return HttpResponse("never mind", status=200)
        return response

    def process_exception(self, request, exception):
        if request.META.get("HTTP_X_WISH") == "answer":
            return HttpResponse("sorry", status=503)
        return None


class OneUser(BaseBackend):
    def get_user(self, user_id):
        return User(pk=int(user_id), username="ana", password="!")
