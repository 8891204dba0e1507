// SPDX-License-Identifier: MIT OR Apache-2.0
//
// What the SDKs for Deno and Node.js share: requests and responses in the mailbox of libmayfly (see libmayfly.h), and
// the loop that serves. A binding gives `native`, which is the mailbox as an ArrayBuffer, or null outside Mayfly, and
// the library's functions.

const REQUEST_SIZE = 0 / 4, CAPACITY = 4 / 4, STATUS = 8 / 4, HEADER_COUNT = 12 / 4, BODY_SIZE = 16 / 4, RESPONSE = 20 / 4;
const METHOD_SIZE = 48 / 4, PATH_SIZE = 52 / 4, QUERY_SIZE = 56 / 4, REQUEST_BODY_SIZE = 60 / 4, HEADERS = 64 / 4;
/** The word that the library sets to 0 with each request; the four behind it are free too. */
export const GENERATOR = 68 / 4;
const HEAD = 96;

/** Calls of a round of the warm-up, and when other threads count as having had nothing to do after it. */
const ROUND = 100, QUIET_US = 50, QUIET_ROUNDS = 4;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/**
 * A request. It lies in the mailbox and is decoded when it is asked for; it is valid until the response.
 * Method, path, query and headers are byte strings, as in HTTP: each character is a byte.
 */
export class Request {
  #words;
  #bytes;
  #view;
  #native;

  constructor(native) {
    this.#native = native;
    this.#words = new Uint32Array(native.mailbox);
    this.#bytes = new Uint8Array(native.mailbox);
    this.#view = new DataView(native.mailbox);
  }

  #start() {
    return HEAD + 8 * this.#words[HEADERS];
  }

  /** The method as it was sent. */
  get method() {
    return latin1(this.#bytes, this.#start(), this.#words[METHOD_SIZE]);
  }

  /** The path as it was sent: percent-encoded, with the tenant's prefix, without the query. */
  get path() {
    return latin1(this.#bytes, this.#start() + this.#words[METHOD_SIZE], this.#words[PATH_SIZE]);
  }

  /** What follows the first "?", without it. */
  get query() {
    const words = this.#words;
    return latin1(this.#bytes, this.#start() + words[METHOD_SIZE] + words[PATH_SIZE], words[QUERY_SIZE]);
  }

  /** All headers as [name, value], in the order in which they came; names are in lower case. */
  get headers() {
    const words = this.#words;
    const headers = [];
    let at = this.#start() + words[METHOD_SIZE] + words[PATH_SIZE] + words[QUERY_SIZE];
    for (let i = 0, sizes = HEAD / 4; i < words[HEADERS]; i++, sizes += 2) {
      const name = latin1(this.#bytes, at, words[sizes]);
      at += words[sizes];
      headers.push([name, latin1(this.#bytes, at, words[sizes + 1])]);
      at += words[sizes + 1];
    }
    return headers;
  }

  /** The value of the first header of that name (in lower case), or null. */
  header(name) {
    const words = this.#words;
    let at = this.#start() + words[METHOD_SIZE] + words[PATH_SIZE] + words[QUERY_SIZE];
    for (let i = 0, sizes = HEAD / 4; i < words[HEADERS]; i++, sizes += 2) {
      const value = at + words[sizes];
      if (words[sizes] === name.length && latin1(this.#bytes, at, words[sizes]) === name) {
        return latin1(this.#bytes, value, words[sizes + 1]);
      }
      at = value + words[sizes + 1];
    }
    return null;
  }

  /** The body's bytes: a view of the mailbox. Copy what must outlive the response. */
  get body() {
    const end = this.#words[REQUEST_SIZE];
    return this.#bytes.subarray(end - this.#words[REQUEST_BODY_SIZE], end);
  }

  /** The body as text (UTF-8). */
  text() {
    return decoder.decode(this.body);
  }

  /** The body as JSON. */
  json() {
    return JSON.parse(this.text());
  }

  /** The request's number in the server's log, a BigInt. */
  get id() {
    return this.#view.getBigUint64(24, true);
  }

  /** When it arrived: ns since 1970, a BigInt. */
  get unixNs() {
    return this.#view.getBigUint64(32, true);
  }

  /** 32 secret bytes that no other request has: suitable to seed generators and to make keys. */
  get entropy() {
    const bytes = new Uint8Array(32);
    this.#native.random(bytes);
    return bytes;
  }
}

/**
 * Serves requests with `handler(request)`, for ever. It returns `{status, headers, body}` or a promise of it: status is
 * 200 if there is none, headers are an object or a list of [name, value], the body is a string, bytes or nothing.
 * A string or bytes alone are a body. A handler that throws answers 500 and the error goes to the log.
 *
 * Everything before the first request is part of the snapshot from which each request starts. So the handler is called
 * `warmUp.count` times before, with a fake request: then it is compiled, and its first-use initialisation is done. If
 * the runtime's compilers still have work then, up to twice as often; fewer than 100 times are never exceeded.
 * `warmUp` describes that request: `{count: 2000, method: "GET", path: "/", query: "", headers: [], body: ""}`. Its
 * responses are dropped. false means no warm-up.
 */
export async function serve(native, handler, { warmUp = {} } = {}) {
  if (!native.mailbox) return native.wait(); // Prints the reason and ends the process.
  const mailbox = new Mailbox(native);
  if (warmUp) await mailbox.warmUp(handler, warmUp);
  native.wait();
  for (;;) {
    let refused = mailbox.turn(handler);
    if (refused instanceof Promise) refused = await refused;
    if (refused !== 0) console.error(`mayfly: the response was refused: error ${-refused}`);
    if (refused === -22) native.exchange(mailbox.write({ status: 500 }));
  }
}

class Mailbox {
  constructor(native) {
    this.bytes = new Uint8Array(native.mailbox);
    this.words = new Uint32Array(native.mailbox);
    this.request = new Request(native);
    this.native = native;
    this.rehearses = false;
  }

  /**
   * Answers one request, and returns what exchange() returns, or a promise of that. A request in a snapshot runs this
   * for the first time each time, so all of it is rehearsed, exchange() too: before wait() that does nothing.
   */
  turn(handler) {
    let answer;
    try {
      answer = handler(this.request);
    } catch (error) {
      return this.#fail(error);
    }
    return answer instanceof Promise ? this.#settle(answer) : this.#finish(answer);
  }

  async #settle(promise) {
    let answer;
    try {
      answer = await promise;
    } catch (error) {
      return this.#fail(error);
    }
    return this.#finish(answer);
  }

  #finish(answer) {
    try {
      this.write(answer);
    } catch (error) {
      return this.#fail(error);
    }
    return this.native.exchange();
  }

  #fail(error) {
    // Warm-up requests fail silently; the first real request that fails logs why.
    if (!this.rehearses) console.error(error);
    this.write({ status: 500 });
    return this.native.exchange();
  }

  /** Encodes a response after the request, to which it may refer. */
  write(answer) {
    const { words, bytes } = this;
    let status = 200, headers = null, body = answer;
    if (typeof answer === "object" && answer !== null && !(answer instanceof Uint8Array)) {
      ({ status = 200, headers = null, body = null } = answer);
    }
    const start = (words[REQUEST_SIZE] + 3) & ~3;
    words[RESPONSE] = start;
    words[STATUS] = status;
    let at = start;
    if (headers) {
      if (!Array.isArray(headers)) headers = Object.entries(headers);
      this.#room(start, 8 * headers.length);
      at += 8 * headers.length;
      for (let i = 0, sizes = start / 4; i < headers.length; i++) {
        const [name, value] = headers[i];
        const middle = this.#put(at, String(name));
        words[sizes++] = middle - at;
        at = this.#put(middle, String(value));
        words[sizes++] = at - middle;
      }
      words[HEADER_COUNT] = headers.length;
    } else {
      words[HEADER_COUNT] = 0;
    }
    let end = at;
    if (typeof body === "string") {
      end = this.#put(at, body);
    } else if (body instanceof Uint8Array) {
      this.#room(at, body.length);
      bytes.set(body, at);
      end = at + body.length;
    } else if (body !== null && body !== undefined) {
      throw new TypeError("a response's body is a string or a Uint8Array");
    }
    words[BODY_SIZE] = end - at;
  }

  #room(at, size) {
    if (at + size > this.words[CAPACITY]) throw new RangeError("the response is larger than the tenant's limit");
  }

  /** Writes text as UTF-8 and returns its end. Short ASCII is quicker by itself than through the encoder. */
  #put(at, text) {
    const { bytes } = this;
    const size = text.length;
    this.#room(at, size);
    if (size <= 64) {
      let i = 0;
      for (; i < size; i++) {
        const code = text.charCodeAt(i);
        if (code > 127) break;
        bytes[at + i] = code;
      }
      if (i === size) return at + size;
    }
    const { read, written } = encoder.encodeInto(text, bytes.subarray(at));
    if (read !== size) throw new RangeError("the response is larger than the tenant's limit");
    return at + written;
  }

  /** Writes a fake request into the mailbox. */
  #pretend({ method = "GET", path = "/", query = "", headers = [], body = "" }) {
    const { words, bytes } = this;
    let at = HEAD + 8 * headers.length;
    const put = (part) => {
      const start = at;
      at = typeof part === "string" ? this.#put(at, part) : (bytes.set(part, at), at + part.length);
      return at - start;
    };
    words[METHOD_SIZE] = put(method);
    words[PATH_SIZE] = put(path);
    words[QUERY_SIZE] = put(query);
    words[HEADERS] = headers.length;
    headers.forEach(([name, value], i) => {
      words[HEAD / 4 + 2 * i] = put(name.toLowerCase());
      words[HEAD / 4 + 2 * i + 1] = put(value);
    });
    words[REQUEST_BODY_SIZE] = put(body);
    words[REQUEST_SIZE] = at;
    words[GENERATOR] = 0;
  }

  async warmUp(handler, { count = 2000, ...request }) {
    // Compilers run in threads of their own, which get the processor while this one rests, and leave the last step to
    // a later call. A snapshot before that step would take it in every request. So the calls go on until rounds of them
    // leave the other threads nothing to do.
    this.rehearses = true;
    const round = count < ROUND ? count : ROUND;
    const most = count < ROUND ? count : 2 * count;
    for (let done = 0, quiet = 0; done < count || (done < most && quiet < QUIET_ROUNDS);) {
      for (const until = Math.min(done + round, most); done < until; done++) await this.#rehearse(handler, request);
      const usedUs = this.native.rest();
      await new Promise((resolve) => setTimeout(resolve, 1)); // For what they have left to the event loop.
      quiet = usedUs < QUIET_US ? quiet + 1 : 0;
    }
    this.rehearses = false;
    // Removes the content of the mailbox from the snapshot.
    this.bytes.fill(0, HEAD, this.words[RESPONSE] + 8 * this.words[HEADER_COUNT] + this.words[BODY_SIZE]);
    globalThis.gc?.(); // With --expose-gc: keeps the garbage of the warm-up out of the snapshot.
  }

  async #rehearse(handler, request) {
    this.#pretend(request);
    const answered = this.turn(handler);
    if (answered instanceof Promise) await answered;
  }
}

/** Bytes as a string of characters below 256. */
function latin1(bytes, at, size) {
  if (size > 64) {
    let text = "";
    for (let end = at + size; at < end; at += 8192) {
      text += String.fromCharCode.apply(null, bytes.subarray(at, Math.min(at + 8192, end)));
    }
    return text;
  }
  let text = "";
  for (let i = at; i < at + size; i++) text += String.fromCharCode(bytes[i]);
  return text;
}

