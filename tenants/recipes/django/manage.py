# SPDX-License-Identifier: MIT OR Apache-2.0
"""Django's commands, for the operator on the host: they use the same database as the tenant."""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "library.settings")
    execute_from_command_line(sys.argv)
