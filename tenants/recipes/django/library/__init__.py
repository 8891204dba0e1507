# SPDX-License-Identifier: MIT OR Apache-2.0
"""A library's books, in Django's admin."""
