// SPDX-License-Identifier: MIT OR Apache-2.0
//
// What a request draws, by its argument: "sdk"; "server", with fresh.js and a server that is only asked; "frozen",
// where nothing was done about it.

import { serve } from "../../sdk/js/mailbox.mjs";
import { open } from "../../sdk/deno/native.js";

let handler;
if (Deno.args[0] === "sdk") await import("../../sdk/deno/mayfly.js");
if (Deno.args[0] === "server") {
  Deno.serve = (given) => (handler = given);
  await import("../../sdk/deno/fresh.js");
}
const { draw } = await import("./sources.mjs");
Deno.serve = Deno.args[0] === "server" ? Deno.serve : (given) => (handler = given);
Deno.serve(draw);
serve(open(), () => JSON.stringify(handler()), { warmUp: { count: 20 } });
