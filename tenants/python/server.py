# SPDX-License-Identifier: MIT OR Apache-2.0
"""A server for Python's standard library, on asyncio: it knows nothing of Mayfly. The port is its argument.

    .../random  what must differ from request to request
    .../echo    the request as JSON
    .../count   how many times this was asked for
    .../exit    ends the program
    .../stream  a response whose length is not known when it begins
    else        Hello World!
"""

import asyncio
import itertools
import json
import os
import random
import sys
import time
import uuid

LIMIT = 16 << 20  # of a request's body, in bytes
counted = itertools.count(1)


class Refused(Exception):
    """A request that is not answered by a route: the status says why, and the connection ends."""


async def read_request(reader):
    """The next request as (method, target, headers, body), or None when the client has left."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise Refused("400 Bad Request") from None
        return None
    except asyncio.LimitOverrunError:
        raise Refused("431 Request Header Fields Too Large") from None
    line, *fields = head.decode("latin-1").split("\r\n")[:-2]
    try:
        method, target, version = line.split(" ")
        headers = {}
        for field in fields:
            name, value = field.split(":", 1)
            name, value = name.lower(), value.strip(" \t")
            headers[name] = f"{headers[name]}, {value}" if name in headers else value
        size = int(headers.get("content-length", "0"))
    except ValueError:
        raise Refused("400 Bad Request") from None
    if version not in ("HTTP/1.0", "HTTP/1.1"):
        raise Refused("505 HTTP Version Not Supported")
    if "transfer-encoding" in headers:
        body = await read_chunks(reader)
    elif 0 <= size <= LIMIT:
        body = await reader.readexactly(size)
    else:
        raise Refused("413 Content Too Large")
    if version == "HTTP/1.0":
        headers.setdefault("connection", "close")
    return method, target, headers, body


async def read_chunks(reader):
    body = bytearray()
    while size := int((await reader.readline()).split(b";")[0], 16):
        if len(body) + size > LIMIT:
            raise Refused("413 Content Too Large")
        body += await reader.readexactly(size)
        await reader.readline()
    while (await reader.readline()).strip():
        pass  # trailers
    return bytes(body)


def answer(method, target, headers, body):
    """The response as (content type, parts of the body)."""
    path, _, query = target.partition("?")
    if path.endswith("/random"):
        page = {"random": random.random(), "uuid": str(uuid.uuid4()), "now": time.time_ns() // 1_000_000}
    elif path.endswith("/echo"):
        text = body.decode(errors="replace")
        page = {"method": method, "path": path, "query": query, "headers": headers, "body": text}
    elif path.endswith("/count"):
        page = {"count": next(counted)}
    elif path.endswith("/exit"):
        os._exit(3)  # from within the loop, which would catch SystemExit
    elif path.endswith("/stream"):
        return "text/plain", [b"one\n", b"two\n", b"three\n"]
    else:
        return "text/plain", [b"Hello World!"]
    return "application/json", [json.dumps(page).encode()]


async def serve(reader, writer):
    try:
        while request := await read_request(reader):
            method, _, headers, _ = request
            content_type, parts = answer(*request)
            last = headers.get("connection", "").lower() == "close"
            head = f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\n"
            head += f"content-length: {len(parts[0])}\r\n" if len(parts) == 1 else "transfer-encoding: chunked\r\n"
            head += "connection: close\r\n\r\n" if last else "\r\n"
            if method == "HEAD":
                writer.write(head.encode())
            elif len(parts) == 1:
                writer.write(head.encode() + parts[0])
            else:
                writer.write(head.encode())
                for part in parts:
                    writer.write(b"%x\r\n%b\r\n" % (len(part), part))
                writer.write(b"0\r\n\r\n")
            await writer.drain()
            if last:
                break
    except Refused as refused:
        writer.write(f"HTTP/1.1 {refused}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
    except (ConnectionError, ValueError, asyncio.IncompleteReadError):
        pass  # The client is gone.
    finally:
        writer.close()


async def main():
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
