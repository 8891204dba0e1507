// SPDX-License-Identifier: MIT OR Apache-2.0
//
// libmayfly.so by Deno.dlopen: the mailbox as an ArrayBuffer, or null outside Mayfly, and the library's functions.

function place() {
  const beside = new URL("../lib/libmayfly.so", import.meta.url).pathname;
  const { state } = Deno.permissions.querySync({ name: "env", variable: "MAYFLY_LIBRARY" });
  return (state === "granted" && Deno.env.get("MAYFLY_LIBRARY")) || beside;
}

export function open() {
  const { symbols } = Deno.dlopen(place(), {
    mayfly_ffi_open: { parameters: [], result: "pointer" },
    mayfly_ffi_wait: { parameters: [], result: "void" },
    mayfly_ffi_rest: { parameters: [], result: "u32" },
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
    rest: () => symbols.mayfly_ffi_rest(),
    exchange: () => symbols.mayfly_ffi_exchange(),
    random(bytes) {
      if (symbols.mayfly_ffi_random(bytes, BigInt(bytes.length)) !== 0) throw new Error("no random bytes");
    },
  };
}
