// SPDX-License-Identifier: MIT OR Apache-2.0
//
// What a request draws, by its argument: "sdk"; "server", with fresh.mjs and a server that gets no connection but is
// told of a request; "frozen", if nothing was done about it.

import { createServer } from "node:http";
import { serve } from "../../sdk/js/mailbox.mjs";
import { open } from "../../sdk/node/native.mjs";

if (process.argv[2] === "sdk") await import("../../sdk/node/mayfly.mjs");
if (process.argv[2] === "server") await import("../../sdk/node/fresh.mjs");
const { draw } = await import("./sources.mjs");
let drawn;
const server = createServer(() => (drawn = draw()));

serve(
  open(),
  () => {
    server.emit("request");
    return JSON.stringify(drawn);
  },
  { warmUp: { count: 20 } },
);
