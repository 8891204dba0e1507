# SPDX-License-Identifier: MIT OR Apache-2.0
# {{name}}: Pythran translates this module to C++, and adapter.cpp serves it.


def on_init():
    # Runs once, before the program is frozen.
    print("initialised")


def on_client_request():
    def generator():
        return "text/plain", "Hello from {{name}}\n"

    return generator
