// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Randomness that is fresh in each request, for runtimes that keep a generator in memory and so in the snapshot.
// docs/freshness.md says what they keep, and what replaces it.

/**
 * Replaces Math.random() by a generator: xoshiro128**, 53 bits of two draws. `random(bytes)` seeds it at its first use
 * after `words[at]` was set to 0. Its state lies in the four words after that.
 */
export function freshMath(words, at, random) {
  const seed = new Uint8Array(words.buffer, words.byteOffset + 4 * (at + 1), 16);
  const a = at + 1, b = at + 2, c = at + 3, d = at + 4;

  function next() {
    const product = Math.imul(words[b], 5);
    const result = Math.imul((product << 7) | (product >>> 25), 9);
    const shifted = words[b] << 9;
    words[c] ^= words[a];
    words[d] ^= words[b];
    words[b] ^= words[c];
    words[a] ^= words[d];
    words[c] ^= shifted;
    words[d] = (words[d] << 11) | (words[d] >>> 21);
    return result >>> 0;
  }

  replace(Math, "random", function random_() {
    if (words[at] === 0) {
      random(seed);
      words[a] |= 1; // A state of all zeroes would stay so.
      words[at] = 1;
    }
    return ((next() >>> 5) * 67108864 + (next() >>> 6)) / 9007199254740992;
  });
}

/**
 * Replaces the generator of a Web Crypto object by `random(bytes)`: getRandomValues() and randomUUID().
 * Keys that `crypto.subtle` makes still come from the runtime.
 */
export function freshCrypto(crypto, random) {
  const kinds = [
    Int8Array, Uint8Array, Uint8ClampedArray, Int16Array, Uint16Array, Int32Array, Uint32Array, BigInt64Array, BigUint64Array,
  ];
  const getRandomValues = crypto.getRandomValues;
  replace(crypto, "getRandomValues", function (array) {
    if (!kinds.some((kind) => array instanceof kind) || array.byteLength > 65536) {
      return getRandomValues.call(this, array); // Throws the right error.
    }
    random(new Uint8Array(array.buffer, array.byteOffset, array.byteLength));
    return array;
  });
  const bytes = new Uint8Array(16);
  replace(crypto, "randomUUID", function () {
    random(bytes);
    return uuid(bytes);
  });
}

/** An integer of at least `min` and less than `max`, as of node:crypto's randomInt(), drawn from `random(bytes)`. */
export function randomInt(random) {
  const words = new Uint32Array(2);
  const bytes = new Uint8Array(words.buffer);
  return function (min, max, callback) {
    if (max === undefined || typeof max === "function") [min, max, callback] = [0, min, max];
    if (!Number.isSafeInteger(min) || !Number.isSafeInteger(max)) throw new TypeError("min and max must be safe integers");
    const range = max - min;
    if (!(range > 0 && range < 2 ** 48)) throw new RangeError("max - min must be above 0 and below 2^48");
    const fair = 2 ** 48 - (2 ** 48 % range); // Numbers from here on would make small ones likelier.
    let number;
    do {
      random(bytes);
      number = (words[0] & 0xffff) * 2 ** 32 + words[1];
    } while (number >= fair);
    number = min + (number % range);
    if (callback === undefined) return number;
    queueMicrotask(() => callback(undefined, number));
  };
}

/** Random bytes in blocks: `read(bytes)` fills a new block when the last one is used up, and after forget(). */
export class Pool {
  #read;
  #block = new Uint8Array(512);
  #left = 0;

  constructor(read) {
    this.#read = read;
  }

  forget() {
    this.#left = 0;
  }

  fill(bytes) {
    if (bytes.length > this.#block.length) return this.#read(bytes);
    if (bytes.length > this.#left) {
      this.#read(this.#block);
      this.#left = this.#block.length;
    }
    bytes.set(this.#block.subarray(this.#left - bytes.length, this.#left));
    this.#left -= bytes.length;
  }
}

const hex = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

/** 16 random bytes as a version 4 UUID (RFC 9562). */
export function uuid(bytes) {
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  let text = "";
  for (let i = 0; i < 16; i++) {
    if (i === 4 || i === 6 || i === 8 || i === 10) text += "-";
    text += hex[bytes[i]];
  }
  return text;
}

/** Replaces a method, wherever on the prototype chain it lies, and keeps its name. */
export function replace(object, name, method) {
  Object.defineProperty(method, "name", { value: name });
  Object.defineProperty(object, name, { value: method, writable: true, configurable: true, enumerable: false });
}
