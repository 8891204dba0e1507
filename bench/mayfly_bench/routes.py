# SPDX-License-Identifier: MIT OR Apache-2.0
"""What is compared under wrk, and where the server answers it."""

VANILLA, SANDBOXED = "vanilla", "sandboxed"
#: The server's routes: that of vanilla, and that of the program on each engine.
ROUTES = {VANILLA: "/", "kvm": "/z", "process": "/p"}
