// SPDX-License-Identifier: MIT OR Apache-2.0
//
// The functions of node:crypto that keep OpenSSL's bytes in memory: randomUUID() has those of 128 UUIDs, randomInt()
// those of 1024 numbers. Functions that are called often draw from `random(bytes)`, too, which costs no exit of the
// machine in the SDK. The others ask OpenSSL each time.

import { createRequire, syncBuiltinESMExports } from "node:module";
import { freshCrypto, randomInt, replace, uuid } from "../js/fresh.mjs";

const crypto = createRequire(import.meta.url)("node:crypto");

/** Replaces them, also for modules that import them by name, but not for existing copies. */
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
