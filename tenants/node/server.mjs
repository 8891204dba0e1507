// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A server for Node.js, as anyone would write it: it knows nothing of Mayfly. The port is its argument.
//
//   .../random  what must differ from request to request
//   .../echo    the request as JSON
//   .../count   how many times this was asked for
//   .../exit    ends the program
//   .../stream  a response whose length is not known when it begins
//   else        Hello World!

import { randomUUID } from "node:crypto";
import { createServer } from "node:http";

let count = 0;
const port = Number(process.argv[2] ?? 8000);

function json(response, value) {
  response.setHeader("content-type", "application/json").end(JSON.stringify(value));
}

async function echo(request, response, path, query) {
  const parts = [];
  for await (const part of request) parts.push(part);
  json(response, {
    method: request.method,
    path,
    query: query ?? "",
    headers: request.headers,
    body: Buffer.concat(parts).toString(),
  });
}

createServer((request, response) => {
  const [path, query] = request.url.split(/\?(.*)/s, 2);
  if (path.endsWith("/random")) return json(response, { random: Math.random(), uuid: randomUUID(), now: Date.now() });
  if (path.endsWith("/echo")) return echo(request, response, path, query);
  if (path.endsWith("/count")) return json(response, { count: ++count });
  if (path.endsWith("/exit")) process.exit(3);
  if (path.endsWith("/stream")) {
    response.setHeader("content-type", "text/plain");
    for (const line of ["one\n", "two\n", "three\n"]) response.write(line);
    return response.end();
  }
  response.setHeader("content-type", "text/plain").end("Hello World!");
}).listen(port, "127.0.0.1");
