// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The guest SDK for Deno:
//
//     import { serve } from ".../sdk/deno/mayfly.js";
//     serve((request) => ({ headers: { "content-type": "text/plain" }, body: `Hello ${request.path}!` }));
//
// It needs `--allow-ffi`, and `--allow-env=MAYFLY_LIBRARY` if the library lies elsewhere than ../lib/libmayfly.so.
// Math.random(), crypto.getRandomValues() and crypto.randomUUID() are fresh in each request (docs/freshness.md).

import { freshCrypto } from "../js/fresh.mjs";
import { Request, serve as serveMailbox } from "../js/mailbox.mjs";

export { Request };

function place() {
  const beside = new URL("../lib/libmayfly.so", import.meta.url).pathname;
  const { state } = Deno.permissions.querySync({ name: "env", variable: "MAYFLY_LIBRARY" });
  return (state === "granted" && Deno.env.get("MAYFLY_LIBRARY")) || beside;
}

function open() {
  const { symbols } = Deno.dlopen(place(), {
    mayfly_ffi_open: { parameters: [], result: "pointer" },
    mayfly_ffi_wait: { parameters: [], result: "void" },
    mayfly_ffi_exchange: { parameters: [], result: "i32" },
    mayfly_ffi_random: { parameters: ["buffer", "usize"], result: "i32" },
  });
  const address = symbols.mayfly_ffi_open();
  let mailbox = null;
  if (address) {
    const capacity = new Deno.UnsafePointerView(address).getUint32(4);
    mailbox = Deno.UnsafePointerView.getArrayBuffer(address, capacity);
  }
  return {
    mailbox,
    wait: () => symbols.mayfly_ffi_wait(),
    exchange: () => symbols.mayfly_ffi_exchange(),
    random(bytes) {
      if (symbols.mayfly_ffi_random(bytes, BigInt(bytes.length)) !== 0) throw new Error("no random bytes");
    },
  };
}

/** Serves requests for ever; see `serve` in ../js/mailbox.mjs for the handler and the options. */
export function serve(handler, options = {}) {
  const native = open();
  if (native.mailbox && options.fresh !== false) freshCrypto(crypto, native.random);
  return serveMailbox(native, handler, options);
}
