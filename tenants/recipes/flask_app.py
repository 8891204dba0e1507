# SPDX-License-Identifier: MIT OR Apache-2.0
"""Flask, for any WSGI server."""

import itertools
import random
import time
import uuid

from flask import Flask, jsonify, request

app = Flask(__name__)
counted = itertools.count(1)


@app.get("/")
def hello():
    return "Hello World!", {"content-type": "text/plain"}


@app.get("/count")
def count():
    return jsonify(count=next(counted))


@app.get("/random")
def numbers():
    return jsonify(random=random.random(), uuid=str(uuid.uuid4()))


@app.get("/slow")
def slow():
    time.sleep(0.02)
    return "slow", {"content-type": "text/plain"}


@app.post("/echo")
def echo():
    return jsonify(request.get_json())


@app.get("/fails")
def fails():
    raise RuntimeError("as it was asked to")
