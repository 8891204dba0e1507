# SPDX-License-Identifier: MIT OR Apache-2.0
"""The guest SDK for Python, on ctypes.

    import mayfly

    mayfly.serve(lambda request: mayfly.Response(f"Hello {request.path}!"))

The library is ../lib/libmayfly.so, or what MAYFLY_LIBRARY names. Before each request the module seeds `random`;
`secrets`, `os.urandom` and `uuid.uuid4` are fresh by themselves; below an OpenSSL that is loaded by then the library
puts itself (see docs/freshness.md).
"""

import ctypes
import gc
import json
import os
import random
import struct
import sys
import traceback
from pathlib import Path

from mayfly_python import show_openssl

__all__ = ["Request", "Response", "serve"]

_HEAD = 96
_REQUEST = struct.Struct("<QQQIIIII")  # id, unix_ns, monotonic_ns; sizes of method, path, query, body; headers
_SIZES = struct.Struct("<II")
_RESPONSE = struct.Struct("<IIII")  # status, headers, size of the body, offset


class Request:
    """A request. Path and query are as they were sent; header names are in lower case; `body` is bytes.

    `headers` is a list of (name, value), and a character of any of the strings is a byte, as in HTTP.
    """

    __slots__ = ("_library", "body", "headers", "id", "method", "monotonic_ns", "path", "query", "unix_ns")

    def __init__(self, library, mailbox):
        self._library = library
        self.id, self.unix_ns, self.monotonic_ns, method, path, query, body, count = _REQUEST.unpack_from(mailbox, 24)
        at = _HEAD + 8 * count

        def text(size):
            nonlocal at
            at += size
            return str(mailbox[at - size : at], "latin-1")

        self.method, self.path, self.query = text(method), text(path), text(query)
        sizes = (_SIZES.unpack_from(mailbox, _HEAD + 8 * i) for i in range(count))
        self.headers = [(text(name), text(value)) for name, value in sizes]
        self.body = bytes(mailbox[at : at + body])

    def header(self, name, default=None):
        """The value of the first header of that name (in lower case)."""
        return next((value for key, value in self.headers if key == name), default)

    def text(self):
        """The body as text (UTF-8)."""
        return self.body.decode()

    def json(self):
        """The body as JSON."""
        return json.loads(self.body)

    def entropy(self):
        """32 secret bytes that no other request has: suitable to seed generators and to make keys."""
        return self._library.random(32)


class Response:
    """A response: a body of text (UTF-8) or bytes, a status, and headers as a dictionary or a list of pairs."""

    __slots__ = ("body", "headers", "status")

    def __init__(self, body=b"", status=200, headers=None, content_type="text/plain"):
        self.body = body.encode() if isinstance(body, str) else body
        self.status = status
        pairs = headers.items() if isinstance(headers, dict) else headers or ()
        self.headers = [(name, str(value)) for name, value in pairs]
        if content_type and not any(name.lower() == "content-type" for name, _ in self.headers):
            self.headers.append(("content-type", content_type))

    def _write(self, mailbox):
        """Writes the response after the request."""
        (size,) = struct.unpack_from("<I", mailbox, 0)
        start = (size + 3) & ~3
        fields = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self.headers]
        table = b"".join(_SIZES.pack(len(name), len(value)) for name, value in fields)
        data = b"".join([table, *(part for field in fields for part in field), self.body])
        if start + len(data) > len(mailbox):
            raise ValueError("the response is larger than the tenant's limit")
        mailbox[start : start + len(data)] = data
        _RESPONSE.pack_into(mailbox, 8, self.status, len(fields), len(self.body), start)


class _Library:
    """libmayfly.so, and its mailbox as a memoryview: None outside Mayfly."""

    def __init__(self):
        beside = Path(__file__).resolve().parent.parent / "lib/libmayfly.so"
        library = ctypes.CDLL(os.environ.get("MAYFLY_LIBRARY") or str(beside))
        library.mayfly_ffi_open.restype = ctypes.c_void_p
        library.mayfly_ffi_wait.restype = None
        library.mayfly_ffi_random.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        self.wait, self.exchange, self._random = (
            library.mayfly_ffi_wait,
            library.mayfly_ffi_exchange,
            library.mayfly_ffi_random,
        )
        self.mailbox = None
        address = library.mayfly_ffi_open()
        if address:
            capacity = ctypes.c_uint32.from_address(address + 4).value
            self.mailbox = memoryview((ctypes.c_ubyte * capacity).from_address(address)).cast("B")

    def random(self, size):
        buffer = ctypes.create_string_buffer(size)
        error = self._random(buffer, size)
        if error:
            raise OSError(-error, os.strerror(-error))
        return buffer.raw


def _freshen(library):
    random.seed(int.from_bytes(library.random(32), "little"))


def _answer(handler, request):
    try:
        answer = handler(request)
        return answer if isinstance(answer, Response) else Response(answer)
    except Exception:
        traceback.print_exc()
        return Response(status=500)


def _warm_up(library, handler, count, method, path, query, headers, body):
    """Calls the handler with fake requests."""
    mailbox = library.mailbox
    fields = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    parts = [method.encode("latin-1"), path.encode("latin-1"), query.encode("latin-1")]
    table = b"".join(_SIZES.pack(len(name), len(value)) for name, value in fields)
    data = b"".join([table, *parts, *(part for field in fields for part in field), body])
    for _ in range(count):
        _REQUEST.pack_into(mailbox, 24, 0, 0, 0, *map(len, parts), len(body), len(fields))
        mailbox[_HEAD : _HEAD + len(data)] = data
        struct.pack_into("<I", mailbox, 0, _HEAD + len(data))
        _answer(handler, Request(library, mailbox))._write(mailbox)
    mailbox[_HEAD : _HEAD + len(data)] = bytes(len(data))


def serve(handler, *, warm_up=100, method="GET", path="/", query="", headers=(), body=b"", fresh=True):
    """Serves requests with handler(request), which returns a Response, or a body alone. Never returns.

    Everything before the first request is part of the snapshot from which each request starts. So the handler is called
    `warm_up` times before, with a fake request that `method` to `body` describe: then its first-use initialisation is
    done. A handler that raises answers 500, and the traceback goes to the log.
    """
    if fresh and "_ssl" in sys.modules:
        show_openssl()
    library = _Library()
    if library.mailbox is None:
        library.wait()  # Prints the reason and ends the process.
    _warm_up(library, handler, warm_up, method, path, query, headers, body)
    sys.stdout.flush()
    # A collection in a request writes to each object that it visits; frozen objects of the snapshot are not visited.
    gc.collect()
    gc.freeze()
    library.wait()
    while True:
        if fresh:
            _freshen(library)
        response = _answer(handler, Request(library, library.mailbox))
        try:
            response._write(library.mailbox)
        except (ValueError, struct.error) as error:
            print(f"mayfly: {error}", file=sys.stderr)
            Response(status=500)._write(library.mailbox)
        error = library.exchange()
        if error:
            print(f"mayfly: the response was refused: error {-error}", file=sys.stderr)
