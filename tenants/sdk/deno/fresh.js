// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Fresh randomness for an unmodified server:
//
//     deno run --allow-net --allow-read=/dev/urandom --preload .../sdk/deno/fresh.js server.js
//
// Math.random(), crypto and node:crypto then draw from 512 bytes of /dev/urandom, which the first draw in a request
// reads: a request is what Deno.serve() passes to its handler. It needs nothing of Mayfly, and works the same outside.

import "./version.js";
import { freshMath, Pool, replace } from "../js/fresh.mjs";
import { freshDeno } from "./crypto.js";

const urandom = Deno.openSync("/dev/urandom");
const pool = new Pool((bytes) => {
  if (urandom.readSync(bytes) !== bytes.length) throw new Error("/dev/urandom was cut short");
});
const generator = new Uint32Array(5);
const serve = Deno.serve;

function fresh(handler) {
  const wrapped = function (...args) {
    pool.forget();
    generator[0] = 0;
    return handler.apply(this, args);
  };
  // Deno creates no Request for a handler without parameters.
  return Object.defineProperty(wrapped, "length", { value: handler.length });
}

// The signatures of Deno.serve(): (handler), (options), (options, handler).
replace(Deno, "serve", function (...args) {
  const last = args.length - 1;
  if (typeof args[last] === "function") {
    args[last] = fresh(args[last]);
  } else if (typeof args[last]?.handler === "function") {
    args[last] = { ...args[last], handler: fresh(args[last].handler) };
  }
  return serve.apply(this, args);
});
freshMath(generator, 0, (bytes) => pool.fill(bytes));
freshDeno((bytes) => pool.fill(bytes));
