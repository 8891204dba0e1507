// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Deno draws all its random numbers from one generator for each thread, ThreadRng of Rust's `rand`, which lies in
// memory and so in the snapshot. It is seeded by the system at its first use, and again after each 64 KiB.

import crypto from "node:crypto";
import module from "node:module"; // Not by name: a Deno without one should still print its version.
import { freshCrypto, randomInt, replace } from "../js/fresh.mjs";

const web = globalThis.crypto;
const getRandomValues = web.getRandomValues.bind(web);
const scratch = new Uint8Array(65536);

/**
 * Makes the system seed this thread's generator again: drawing 64 KiB reaches a new seed. Call it in a request
 * before you use what makes keys, and what else takes numbers from Deno itself; the functions of freshDeno() do.
 */
export function reseed() {
  getRandomValues(scratch);
}

/** Replaces Deno's generator by `random(bytes)` where JavaScript can reach it, and reseeds it elsewhere. */
export function freshDeno(random) {
  freshCrypto(web, random);
  replace(crypto, "randomInt", randomInt(random));
  replace(crypto, "randomFillSync", function (buffer, offset = 0, size = undefined) {
    const view = ArrayBuffer.isView(buffer) ? buffer : new Uint8Array(buffer);
    const unit = view.BYTES_PER_ELEMENT ?? 1;
    const length = size === undefined ? view.byteLength - offset * unit : size * unit;
    random(new Uint8Array(view.buffer, view.byteOffset + offset * unit, length));
    return buffer;
  });
  for (const [object, name] of [
    [crypto, "generateKeySync"],
    [crypto, "generateKeyPairSync"],
    [crypto, "generatePrimeSync"],
    [web.subtle, "generateKey"],
  ]) {
    const original = object[name];
    replace(object, name, function (...args) {
      reseed();
      return original.apply(this, args);
    });
  }
  module.syncBuiltinESMExports();
}
