# SPDX-License-Identifier: MIT OR Apache-2.0

import itertools

from django.contrib import admin
from django.http import HttpResponse, JsonResponse
from django.urls import path

counted = itertools.count(1)

urlpatterns = [
    path("", lambda request: HttpResponse("Hello World!", content_type="text/plain")),
    path("count", lambda request: JsonResponse({"count": next(counted)})),
    path("admin/", admin.site.urls),
]
