// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Draws from each source of random numbers of a JavaScript runtime, for the tests of freshness. Synchronously: in a
// fork of the fake host's there are no other threads.

import * as named from "node:crypto";

const web = globalThis.crypto ?? named.webcrypto; // Node.js 18 has no global one.

const hex = (bytes) => Buffer.from(bytes).toString("hex");
const { randomUUID } = named; // As most programs have it: from before anything was replaced.

export function draw() {
  const crypto = named.default;
  return {
    "Math.random": String(Math.random()),
    "crypto.getRandomValues": hex(web.getRandomValues(new Uint8Array(16))),
    "crypto.randomUUID": web.randomUUID(),
    "node:crypto randomUUID": crypto.randomUUID(),
    "node:crypto randomUUID by name": named.randomUUID(),
    "node:crypto randomUUID kept": randomUUID(),
    "node:crypto randomBytes": hex(crypto.randomBytes(16)),
    "node:crypto randomBytes by name": hex(named.randomBytes(16)),
    "node:crypto randomFillSync": hex(crypto.randomFillSync(new Uint8Array(16))),
    "node:crypto randomInt": String(crypto.randomInt(2 ** 47)),
    "node:crypto webcrypto": hex(crypto.webcrypto.getRandomValues(new Uint8Array(16))),
    "node:crypto generateKeySync": hex(crypto.generateKeySync("hmac", { length: 128 }).export()),
    "node:crypto generateKeyPairSync": hex(
      crypto.generateKeyPairSync("ed25519").publicKey.export({ type: "spki", format: "der" }),
    ),
  };
}
