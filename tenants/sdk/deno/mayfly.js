// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The guest SDK for Deno:
//
//     import { serve } from ".../sdk/deno/mayfly.js";
//     serve((request) => ({ headers: { "content-type": "text/plain" }, body: `Hello ${request.path}!` }));
//
// It needs `--allow-ffi`, and `--allow-env=MAYFLY_LIBRARY` if the library lies elsewhere than ../lib/libmayfly.so. From
// the import on, Math.random(), crypto and node:crypto are fresh in each request; import it before what might keep such
// a function for itself. For keys of Deno's own making see reseed() in crypto.js (docs/freshness.md).

import "./version.js";
import { freshMath } from "../js/fresh.mjs";
import { GENERATOR, Request, serve as serveMailbox } from "../js/mailbox.mjs";
import { freshDeno, reseed } from "./crypto.js";
import { open } from "./native.js";

export { Request, reseed };

const native = open();
if (native.mailbox) {
  const words = new Uint32Array(native.mailbox);
  freshMath(words, GENERATOR, native.random);
  freshDeno(native.random);
}

/** Serves requests for ever; see `serve` in ../js/mailbox.mjs for the handler and the options. */
export function serve(handler, options) {
  return serveMailbox(native, handler, options);
}
