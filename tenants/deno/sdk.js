// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The sample server for Deno, by the SDK: one exit of the machine for a request.
//
//   .../random  what must differ from request to request
//   .../echo    the request as JSON
//   else        Hello World!

import { serve } from "../sdk/deno/mayfly.js";

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
  return { headers: text, body: "Hello World!" };
});
