// SPDX-License-Identifier: MIT OR Apache-2.0

import { randomUUID } from "node:crypto";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import express from "express";

const app = express();
let count = 0;

app.use(express.json());
app.use("/static", express.static(join(dirname(fileURLToPath(import.meta.url)), "www")));
app.get("/", (request, response) => response.type("text").send("Hello World!"));
app.get("/count", (request, response) => response.json({ count: ++count }));
app.get("/random", (request, response) => response.json({ random: Math.random(), uuid: randomUUID() }));
app.get("/slow", (request, response) => setTimeout(() => response.type("text").send("slow"), 20));
app.post("/echo", (request, response) => response.json(request.body));
app.get("/fails", () => {
  throw new Error("as it was asked to");
});
app.listen(8000);
