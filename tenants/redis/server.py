# SPDX-License-Identifier: MIT OR Apache-2.0
"""An HTTP server on asyncio that counts in Redis: it knows nothing of Mayfly. Redis is REDIS=HOST:PORT; the port is its
argument.

It connects when it starts, and again when the connection is lost: after a reset that is in every request.

    .../count?KEY  the new number
    else           Hello World!
"""

import asyncio
import os
import sys

HOST, _, PORT = os.environ["REDIS"].rpartition(":")


class Redis:
    def __init__(self):
        self.streams = None
        self.turn = asyncio.Lock()

    async def connect(self):
        self.streams = await asyncio.open_connection(HOST, int(PORT))

    async def increment(self, key):
        async with self.turn:
            for is_last in (False, True):
                try:
                    if self.streams is None:
                        await self.connect()
                    reader, writer = self.streams
                    writer.write(b"*2\r\n$4\r\nINCR\r\n$%d\r\n%s\r\n" % (len(key), key))
                    await writer.drain()
                    line = await reader.readline()
                    if line.startswith(b":"):
                        return line[1:].strip()
                    raise ConnectionError("the connection was lost")
                except OSError:
                    self.streams = None
                    if is_last:
                        raise


async def main():
    redis = Redis()
    await redis.connect()

    async def serve(reader, writer):
        while (line := await reader.readline()).strip():
            _, target, _ = line.split()
            while (await reader.readline()).strip():
                pass
            path, _, query = target.partition(b"?")
            status, body = b"200 OK", b"Hello World!"
            try:
                if path.endswith(b"/count"):
                    body = await redis.increment(query)
            except OSError as error:
                status, body = b"502 Bad Gateway", str(error).encode()
            writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()


asyncio.run(main())
