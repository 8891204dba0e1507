// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The guest SDK for Node.js, on koffi:
//
//     import { serve } from ".../sdk/node/mayfly.mjs";
//     serve((request) => ({ headers: { "content-type": "text/plain" }, body: `Hello ${request.path}!` }));
//
// MAYFLY_LIBRARY says where the library is, if not in ../lib/libmayfly.so. Math.random(), crypto.randomUUID() and all of
// node:crypto, keys included, are fresh in each request: the library puts itself below OpenSSL (docs/freshness.md).

import { webcrypto } from "node:crypto";
import { fileURLToPath } from "node:url";
import koffi from "koffi";
import { freshCrypto } from "../js/fresh.mjs";
import { Request, serve as serveMailbox } from "../js/mailbox.mjs";
import { freshUuids } from "./uuid.mjs";

export { Request };

function open() {
  const beside = fileURLToPath(new URL("../lib/libmayfly.so", import.meta.url));
  const library = koffi.load(process.env.MAYFLY_LIBRARY || beside);
  const address = library.func("void *mayfly_ffi_open()")();
  const random = library.func("int mayfly_ffi_random(void *to, size_t size)");
  return {
    mailbox: address ? koffi.view(address, koffi.decode(address, 4, "uint32_t")) : null,
    wait: library.func("void mayfly_ffi_wait()"),
    exchange: library.func("int mayfly_ffi_exchange()"),
    random(bytes) {
      if (random(bytes, bytes.length) !== 0) throw new Error("no random bytes");
    },
  };
}

/** Serves requests for ever; see `serve` in ../js/mailbox.mjs for the handler and the options. */
export function serve(handler, options = {}) {
  const native = open();
  if (native.mailbox && options.fresh !== false) {
    freshCrypto(webcrypto, native.random);
    freshUuids(native.random);
  }
  return serveMailbox(native, handler, options);
}
