# SPDX-License-Identifier: MIT OR Apache-2.0
"""What a request draws, by its argument: "sdk"; "server", with fresh.py; "frozen", where nothing was done about it."""

import json
import os
import random
import secrets
import ssl
import sys
import uuid
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "sdk/python"))
MODE = sys.argv[1]

if MODE == "server":
    import fresh  # noqa: F401
import mayfly

kept = random.random
own = random.Random()


def draw(_request):
    return json.dumps(
        {
            "random.random": random.random(),
            "random.random kept": kept(),
            "random.getrandbits": random.getrandbits(64),
            "random.shuffle": random.sample(range(10**9), 3),
            "a Random of the program's": own.random(),
            "random.SystemRandom": random.SystemRandom().random(),
            "os.urandom": os.urandom(16).hex(),
            "secrets": secrets.token_hex(),
            "uuid.uuid4": str(uuid.uuid4()),
            "ssl.RAND_bytes": ssl.RAND_bytes(16).hex(),
        }
    )


mayfly.serve(draw, warm_up=20, fresh=MODE == "sdk")
