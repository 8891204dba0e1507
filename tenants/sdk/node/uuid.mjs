// SPDX-License-Identifier: MIT OR Apache-2.0
//
// node:crypto's randomUUID() takes its bytes from a buffer of 128 UUIDs, which a snapshot would freeze.

import { createRequire, syncBuiltinESMExports } from "node:module";
import { replace, uuid } from "../js/fresh.mjs";

/** Has each UUID made of 16 bytes from `random(bytes)`, for those who import it by name too. */
export function freshUuids(random) {
  const crypto = createRequire(import.meta.url)("node:crypto");
  const bytes = new Uint8Array(16);
  replace(crypto, "randomUUID", function () {
    random(bytes);
    return uuid(bytes);
  });
  syncBuiltinESMExports();
}
