# SPDX-License-Identifier: MIT OR Apache-2.0
"""The application, and what it does at each boot, before Mayfly freezes it."""

import os
from pathlib import Path

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "library.settings")

from django.core.wsgi import get_wsgi_application  # noqa: E402

application = get_wsgi_application()

from django.contrib import admin  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connections  # noqa: E402
from django.template.loader import get_template  # noqa: E402
from django.test import RequestFactory  # noqa: E402

from library.models import Book  # noqa: E402

# A durable mount keeps it, so from the second boot on there is nothing to do.
call_command("migrate", verbosity=0)

# Otherwise each request would load the pages behind the login anew, since no warm-up request can log in.
for directory in Path(admin.__file__).parent.joinpath("templates").iterdir():
    for file in directory.rglob("*.html"):
        get_template(str(file.relative_to(directory.parent)))
request = RequestFactory().get("/admin/library/book/")
request.user = User(username="nobody", is_staff=True, is_superuser=True)
model_admin = admin.site.get_model_admin(Book)
for page in (admin.site.index(request), model_admin.changelist_view(request), model_admin.add_view(request)):
    page.render()

connections.close_all()
