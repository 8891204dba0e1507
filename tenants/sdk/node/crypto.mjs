// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Of node:crypto, the functions that keep bytes in memory that OpenSSL gave them: randomUUID() has those of 128 UUIDs,
// randomInt() those of 1024 numbers. Those that are asked often draw from `random(bytes)` too, which costs no exit of
// the machine in the SDK. The rest asks OpenSSL each time.

import { createRequire, syncBuiltinESMExports } from "node:module";
import { freshCrypto, randomInt, replace, uuid } from "../js/fresh.mjs";

const crypto = createRequire(import.meta.url)("node:crypto");

/** Replaces them, for those who import them by name too, but not for those who have a copy already. */
export function freshNode(random) {
  freshCrypto(crypto.webcrypto, random);
  const bytes = new Uint8Array(16);
  replace(crypto, "randomUUID", function () {
    random(bytes);
    return uuid(bytes);
  });
  replace(crypto, "randomInt", randomInt(random));
  const { randomBytes } = crypto;
  replace(crypto, "randomBytes", function (size, callback) {
    if (callback !== undefined || !Number.isInteger(size) || size < 0 || size > 65536) return randomBytes(size, callback);
    const buffer = Buffer.alloc(size);
    random(buffer);
    return buffer;
  });
  syncBuiltinESMExports();
}
