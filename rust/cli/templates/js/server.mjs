// SPDX-License-Identifier: MIT OR Apache-2.0
// {{name}}: an HTTP server as anyone would write it. Every request runs in a fresh copy of it, frozen after the warm-up
// requests of mayfly.json; what a request changes is gone before the next one.

import { createServer } from "node:http";
import { randomUUID } from "node:crypto";

let count = 0;

createServer((request, response) => {
  count += 1;
  response.setHeader("content-type", "text/plain");
  response.end(`Hello from {{name}}: ${request.url}, request ${count} of this copy, id ${randomUUID()}\n`);
}).listen(8000);
