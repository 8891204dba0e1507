# SPDX-License-Identifier: MIT OR Apache-2.0
"""FastAPI, for any ASGI server. Two routes are plain functions, which run on threads."""

import asyncio
import itertools
import random
import uuid
from typing import Any

from fastapi import Body, FastAPI
from fastapi.responses import PlainTextResponse

app = FastAPI()
counted = itertools.count(1)


@app.get("/", response_class=PlainTextResponse)
async def hello():
    return "Hello World!"


@app.get("/count")
async def count():
    return {"count": next(counted)}


@app.get("/random")
def numbers():
    return {"random": random.random(), "uuid": str(uuid.uuid4())}


@app.get("/slow", response_class=PlainTextResponse)
async def slow():
    await asyncio.sleep(0.02)
    return "slow"


@app.post("/echo")
def echo(body: Any = Body()):
    return body


@app.get("/fails")
async def fails():
    raise RuntimeError("as it was asked to")
