# SPDX-License-Identifier: MIT OR Apache-2.0
"""The sample server for Python, by the SDK: one exit of the machine for a request.

    .../random  what must differ from request to request
    .../echo    the request as JSON
    .../count   how many times this was asked for
    .../exit    ends the program
    else        Hello World!
"""

import itertools
import json
import os
import random
import sys
import time
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "sdk/python"))
import mayfly  # noqa: E402

counted = itertools.count(1)


def page(request):
    if request.path.endswith("/random"):
        page = {"random": random.random(), "uuid": str(uuid.uuid4()), "now": time.time_ns() // 1_000_000}
    elif request.path.endswith("/echo"):
        page = {name: getattr(request, name) for name in ("method", "path", "query")}
        page |= {"headers": dict(request.headers), "body": request.body.decode(errors="replace")}
    elif request.path.endswith("/count"):
        page = {"count": next(counted)}
    elif request.path.endswith("/exit"):
        os._exit(3)
    else:
        return mayfly.Response("Hello World!")
    return mayfly.Response(json.dumps(page), content_type="application/json")


mayfly.serve(page)
