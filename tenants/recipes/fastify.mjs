// SPDX-License-Identifier: MIT OR Apache-2.0

import { randomUUID } from "node:crypto";
import { setTimeout } from "node:timers/promises";

import Fastify from "fastify";

const app = Fastify();
let count = 0;

app.get("/", async () => "Hello World!");
app.get("/count", async () => ({ count: ++count }));
app.get("/random", async () => ({ random: Math.random(), uuid: randomUUID() }));
app.get("/slow", async () => {
  await setTimeout(20);
  return "slow";
});
app.post("/echo", async (request) => request.body);
app.get("/fails", async () => {
  throw new Error("as it was asked to");
});
await app.listen({ port: 8000 });
