// SPDX-License-Identifier: MIT OR Apache-2.0
//
// libmayfly.so by koffi: the mailbox as an ArrayBuffer, or null outside Mayfly, and the library's functions.

import { fileURLToPath } from "node:url";
import "./version.mjs";
import koffi from "koffi";

let opened;

/** Opens the library, once: V8 below version 11 ends the process when the same memory becomes a second ArrayBuffer. */
export function open() {
  return (opened ??= load());
}

function load() {
  const beside = fileURLToPath(new URL("../lib/libmayfly.so", import.meta.url));
  const library = koffi.load(process.env.MAYFLY_LIBRARY || beside);
  const address = library.func("void *mayfly_ffi_open()")();
  const random = library.func("int mayfly_ffi_random(void *to, size_t size)");
  return {
    mailbox: address ? koffi.view(address, koffi.decode(address, 4, "uint32_t")) : null,
    wait: library.func("void mayfly_ffi_wait()"),
    rest: library.func("uint32_t mayfly_ffi_rest()"),
    exchange: library.func("int mayfly_ffi_exchange()"),
    random(bytes) {
      if (random(bytes, bytes.length) !== 0) throw new Error("no random bytes");
    },
  };
}
