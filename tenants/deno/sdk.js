// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The sample server for Deno, by the SDK: one exit of the machine for a request.
//
//   .../random  what must differ from request to request
//   .../echo    the request as JSON
//   .../count   how many times this was asked for
//   .../exit    ends the program
//   else        Hello World!

import { serve } from "../sdk/deno/mayfly.js";

let count = 0;
const text = { "content-type": "text/plain" };
const json = { "content-type": "application/json" };

function random() {
  return { random: Math.random(), uuid: crypto.randomUUID(), now: Date.now() };
}

function echo({ method, path, query, headers, body }) {
  return { method, path, query, headers: Object.fromEntries(headers), body: new TextDecoder().decode(body) };
}

serve((request) => {
  const { path } = request;
  if (path.endsWith("/random")) return { headers: json, body: JSON.stringify(random()) };
  if (path.endsWith("/echo")) return { headers: json, body: JSON.stringify(echo(request)) };
  if (path.endsWith("/count")) return { headers: json, body: JSON.stringify({ count: ++count }) };
  if (path.endsWith("/exit")) Deno.exit(3);
  return { headers: text, body: "Hello World!" };
});
