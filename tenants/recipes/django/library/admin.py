# SPDX-License-Identifier: MIT OR Apache-2.0

from django.contrib import admin

from library.models import Book


@admin.register(Book)
class BookAdmin(admin.ModelAdmin):
    list_display = ["title", "author", "added"]
    search_fields = ["title", "author"]
