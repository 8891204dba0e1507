// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Fresh randomness for an unmodified server:
//
//     LD_PRELOAD=.../sdk/lib/libmayfly-fresh.so node --import .../sdk/node/fresh.mjs server.mjs
//
// (or NODE_OPTIONS="--import ..."). The library makes OpenSSL ask the system each time, for keys and for TLS. This
// module does the same for Math.random() and for what node:crypto keeps, from 512 bytes of /dev/urandom, which the
// first draw in a request reads: a request is what a server emits as `request`, `connection` or `upgrade`. It needs
// nothing of Mayfly, and works the same outside.

import "./version.mjs";
import { EventEmitter } from "node:events";
import { openSync, readSync } from "node:fs";
import { Server } from "node:net";
import { freshMath, Pool, replace } from "../js/fresh.mjs";
import { freshNode } from "./crypto.mjs";

const urandom = openSync("/dev/urandom", "r");
const pool = new Pool((bytes) => {
  if (readSync(urandom, bytes) !== bytes.length) throw new Error("/dev/urandom was cut short");
});
const generator = new Uint32Array(5);
const emit = EventEmitter.prototype.emit;

replace(Server.prototype, "emit", function (type, ...args) {
  if (type === "request" || type === "connection" || type === "upgrade") {
    pool.forget();
    generator[0] = 0;
  }
  return emit.call(this, type, ...args);
});
freshMath(generator, 0, (bytes) => pool.fill(bytes));
freshNode((bytes) => pool.fill(bytes));
