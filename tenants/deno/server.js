// SPDX-License-Identifier: MIT OR Apache-2.0
//
// A server for Deno, as anyone would write it: it knows nothing of Mayfly. The port is its argument.
//
//   .../random  what must differ from request to request
//   .../echo    the request as JSON
//   .../count   how many times this was asked for
//   .../exit    ends the program
//   .../stream  a response whose length is not known when it begins
//   else        Hello World!

let count = 0;
const port = Number(Deno.args[0] ?? 8000);

async function echo(request, url) {
  return Response.json({
    method: request.method,
    path: url.pathname,
    query: url.search.slice(1),
    headers: Object.fromEntries(request.headers),
    body: await request.text(),
  });
}

function stream() {
  const lines = ["one\n", "two\n", "three\n"];
  const body = new ReadableStream({
    pull(controller) {
      controller.enqueue(lines.shift());
      if (lines.length === 0) controller.close();
    },
  });
  return new Response(body.pipeThrough(new TextEncoderStream()), { headers: { "content-type": "text/plain" } });
}

Deno.serve({ hostname: "127.0.0.1", port }, (request) => {
  const url = new URL(request.url);
  if (url.pathname.endsWith("/random")) {
    return Response.json({ random: Math.random(), uuid: crypto.randomUUID(), now: Date.now() });
  }
  if (url.pathname.endsWith("/echo")) return echo(request, url);
  if (url.pathname.endsWith("/stream")) return stream();
  if (url.pathname.endsWith("/count")) return Response.json({ count: ++count });
  if (url.pathname.endsWith("/exit")) Deno.exit(3);
  return new Response("Hello World!", { headers: { "content-type": "text/plain" } });
});
