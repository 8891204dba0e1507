// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The guest SDK for Node.js, on koffi:
//
//     import { serve } from ".../sdk/node/mayfly.mjs";
//     serve((request) => ({ headers: { "content-type": "text/plain" }, body: `Hello ${request.path}!` }));
//
// MAYFLY_LIBRARY says where the library is, if not in ../lib/libmayfly.so. From the import on, Math.random() and all of
// node:crypto, keys included, are fresh in each request: the library puts itself below OpenSSL, and what Node.js keeps
// above it is replaced. Import it before what might keep such a function for itself (docs/freshness.md).

import "./version.mjs";
import { freshMath } from "../js/fresh.mjs";
import { GENERATOR, Request, serve as serveMailbox } from "../js/mailbox.mjs";
import { freshNode } from "./crypto.mjs";
import { open } from "./native.mjs";

export { Request };

const native = open();
if (native.mailbox) {
  freshMath(new Uint32Array(native.mailbox), GENERATOR, native.random);
  freshNode(native.random);
}

/** Serves requests for ever; see `serve` in ../js/mailbox.mjs for the handler and the options. */
export function serve(handler, options) {
  return serveMailbox(native, handler, options);
}
