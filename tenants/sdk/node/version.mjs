// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Imported before all else, so that a Node.js that is too old says so, and not what it does not understand.

const needed = 18;
const { node } = process.versions;

if (parseInt(node, 10) < needed) {
  throw new Error(`Mayfly's SDK and hook for Node.js need Node.js ${needed} or newer; this is ${node}`);
}
