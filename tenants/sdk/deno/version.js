// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Imported before all else, so that a Deno that is too old says so, and not what it does not have: before 2.8.2 there
// is no syncBuiltinESMExports(), without which a function of node:crypto that was imported by name would stay the old
// one; before 2.8.3 Deno.serve cannot be replaced.

const needed = [2, 8, 3];
const ours = Deno.version.deno.split(".").map((part) => parseInt(part, 10));
const differs = needed.findIndex((part, i) => part !== ours[i]);

if (differs !== -1 && ours[differs] < needed[differs]) {
  throw new Error(`Mayfly's SDK and hook for Deno need Deno ${needed.join(".")} or newer; this is ${Deno.version.deno}`);
}
