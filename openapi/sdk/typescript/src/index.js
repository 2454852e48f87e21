/**
 * The client of Dotring's HTTP API: keys and values over any of several gateways, with contexts that carry themselves. It
 * needs `fetch` alone, in Node 20 and later and in browsers. The types of the whole API are generated, in schema.d.ts.
 * @module
 */

import { again, doubtful, escape, IN_DOUBT, NOT_APPLIED, order, retryAfter } from "./route.js";

export { escape, IN_DOUBT, NOT_APPLIED, order };

/** @typedef {import("./schema.d.ts").components["schemas"]} Schemas */
/** @typedef {Schemas["Written"]} Written */
/** @typedef {Schemas["Problem"]} Problem */
/** @typedef {{data: Uint8Array, contentType: string, etag: string, lastModified: string, tombstone: boolean}} Sibling */
/** @typedef {{data: Uint8Array, contentType: string, etag: string, context: string}} Value etag is empty for a merged value. */
/** @typedef {string | Uint8Array} Bytes Text is UTF-8. */
/** @typedef {{status: number, headers: Headers, body: Uint8Array}} Reply */

/**
 * All are optional. token is sent as a bearer token; readQuorum and writeQuorum as r and w: a number, one, quorum or all.
 * resolve merges siblings into the value that a read returns, instead of a Conflict; nothing is written by that. cacheBytes
 * bounds the cache of values, of which each use is revalidated by ETag; 0 has none. attempts is how often a request is tried
 * at most, and timeout bounds each attempt, in milliseconds.
 * @typedef {{token?: string, readQuorum?: string, writeQuorum?: string, cacheBytes?: number, attempts?: number, timeout?: number,
 *   resolve?: (key: Uint8Array, siblings: Sibling[]) => {data: Uint8Array, contentType?: string}}} Options
 */

/** How many keys a session remembers the contexts of, each at most 3 KiB. */
export const MAX_SESSION_KEYS = 10_000;
const MAX_ANSWER = 8 << 20; // more than the largest record, 3 MiB, in base64
const OVERHEAD = 256; // about what a cached value costs beside its bytes

/** A key was never written, or is deleted. */
export class NoValue extends Error {
  name = "NoValue";
}

/** A session knows MAX_SESSION_KEYS keys already, and nothing was sent: to forget one would let a write replace what was never seen. */
export class SessionFull extends Error {
  name = "SessionFull";
}

/** A read found siblings. A write with its context, as the next one of the same session has, replaces them all. */
export class Conflict extends Error {
  name = "Conflict";
  /** @param {Sibling[]} siblings @param {string} context */
  constructor(siblings, context) {
    super(`conflict: ${siblings.length} siblings`);
    this.siblings = siblings;
    this.context = context;
  }
}

/**
 * A request failed. status is 0 where no answer came. outcome is NOT_APPLIED or IN_DOUBT for a write, with all its attempts in
 * mind, and empty for a read.
 */
export class RequestError extends Error {
  name = "RequestError";
  /** @param {number} status @param {Partial<Problem>} problem @param {string} outcome @param {unknown} [cause] */
  constructor(status, problem, outcome, cause) {
    super(status ? `status ${status}: ${problem.title}: ${problem.detail}` : `no answer: ${cause}`, { cause });
    this.status = status;
    this.problem = problem;
    this.outcome = outcome;
  }
}

/** Speaks to several gateways that lead to one cluster. */
export class Client {
  #gateways;
  #options;
  /** @type {Map<string, Value>} the oldest first */
  #cache = new Map();
  #cached = 0;

  /** @param {string[]} gateways http or https URLs, one at least @param {Options} [options] */
  constructor(gateways, options = {}) {
    for (const g of gateways) {
      const url = new URL(g);
      if (!/^https?:$/.test(url.protocol) || url.search || url.hash) throw new TypeError(`gateway ${g} is no http or https URL`);
    }
    if (gateways.length === 0) throw new TypeError("no gateway is named");
    this.#gateways = gateways.map((g) => g.replace(/\/+$/, ""));
    this.#options = { attempts: 4, timeout: 65_000, cacheBytes: 0, ...options };
  }

  /** A new session: one flow of work, such as a user's request. */
  session() {
    return new Session(this);
  }

  /** @internal */
  get resolve() {
    return this.#options.resolve;
  }

  /**
   * Sends a request under one request id until it is answered, or trying again is of no use.
   * @internal @param {string} method @param {Uint8Array} key @param {Record<string, string>} headers @param {Uint8Array} [body]
   * @returns {Promise<Reply>}
   */
  async send(method, key, headers, body) {
    const gateways = order(this.#gateways, key);
    const write = method !== "GET";
    headers["Kv-Request-Id"] = Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
    if (this.#options.token) headers["Authorization"] = "Bearer " + this.#options.token;
    for (let n = 1, doubt = false; ; n++) {
      const { reply, attempt, problem, cause } = await this.#once(method, gateways[(n - 1) % gateways.length], key, headers, body);
      if (reply) return reply;
      // What an earlier attempt may have done stays in doubt, whatever becomes of later ones.
      doubt ||= write && doubtful(attempt);
      const wait = again(attempt, n, this.#options.attempts, gateways.length, write, Math.random());
      if (wait === null) {
        const outcome = !write ? "" : doubt ? IN_DOUBT : NOT_APPLIED;
        throw new RequestError(attempt.status, problem, outcome, cause);
      }
      await new Promise((done) => setTimeout(done, wait));
    }
  }

  /**
   * @param {string} method @param {string} gateway @param {Uint8Array} key @param {Record<string, string>} headers @param {Uint8Array} [body]
   * @returns {Promise<{reply?: Reply, attempt: import("./route.js").Attempt, problem: Partial<Problem>, cause?: unknown}>}
   */
  async #once(method, gateway, key, headers, body) {
    const [name, quorum] = method === "GET" ? ["r", this.#options.readQuorum] : ["w", this.#options.writeQuorum];
    const path = escape(key);
    const dots = path === "." || path === "..";
    /** @type {Reply} */
    let reply;
    try {
      const signal = AbortSignal.timeout(this.#options.timeout);
      const request = dots
        ? asBatch(method, path, quorum, headers, body)
        : { path: "/" + path + (quorum ? `?${name}=${encodeURIComponent(quorum)}` : ""), method, headers, body };
      const answer = await fetch(`${gateway}/v1/kv${request.path}`, {
        method: request.method, headers: request.headers, body: /** @type {BodyInit | undefined} */ (request.body), signal, cache: "no-store",
      });
      reply = { status: answer.status, headers: answer.headers, body: await readAll(answer) };
      if (dots && reply.status === 200) reply = ofBatch(method, reply);
    } catch (cause) {
      const code = cause instanceof Error && /** @type {any} */ (cause.cause)?.code;
      return { attempt: { status: 0, sent: code !== "ECONNREFUSED" && code !== "ENOTFOUND", outcome: "", retryAfter: 0 }, problem: {}, cause };
    }
    const { status } = reply;
    const attempt = { status, sent: true, outcome: "", retryAfter: retryAfter(reply.headers.get("Retry-After")) };
    if (status === 200 || status === 300 || status === 304 || (status === 404 && method === "GET" && reply.headers.has("Kv-Context"))) {
      return { reply, attempt, problem: {} };
    }
    const text = new TextDecoder().decode(reply.body);
    /** @type {Partial<Problem>} */
    let problem = { title: "not a problem", detail: text.slice(0, 200) };
    try {
      problem = JSON.parse(text) ?? problem;
    } catch {
      // a balancer's page
    }
    attempt.outcome = problem.outcome ?? "";
    return { attempt, problem };
  }

  /** @internal @param {string} id @returns {Value | undefined} */
  cached(id) {
    const value = this.#cache.get(id);
    if (value) {
      this.#cache.delete(id);
      this.#cache.set(id, value);
    }
    return value;
  }

  /** Replaces what is held of a key; without a value it only removes it. @internal @param {string} id @param {Value} [value] */
  cache(id, value) {
    /** @param {string} id @param {Value} v */
    const size = (id, v) => OVERHEAD + id.length + v.data.length + v.contentType.length;
    const remove = (/** @type {string} */ id) => {
      const old = this.#cache.get(id);
      if (old) this.#cached -= size(id, old);
      this.#cache.delete(id);
    };
    remove(id);
    if (!value?.etag || size(id, value) > this.#options.cacheBytes) return;
    this.#cache.set(id, value);
    this.#cached += size(id, value);
    for (const oldest of this.#cache.keys()) {
      if (this.#cached <= this.#options.cacheBytes) break;
      remove(oldest);
    }
  }
}

/**
 * Remembers the context of each key it reads and writes, and sends it: its writes replace exactly what it has seen, and its
 * reads never show less than that. Work that must not be taken for having seen what other work saw needs a session of its own.
 * The keys `.` and `..`, which fetch folds in paths, go by batch, and reads of these two do not send the context.
 */
export class Session {
  #client;
  /** @type {Map<string, string>} */
  #contexts = new Map();

  /** @internal @param {Client} client */
  constructor(client) {
    this.#client = client;
  }

  /** Reads a key. Throws NoValue, Conflict where the client has no resolve, SessionFull and RequestError. @param {Bytes} key @returns {Promise<Value>} */
  async get(key) {
    const { raw, id, headers } = this.#begin(key);
    const cached = this.#client.cached(id);
    if (cached) headers["If-None-Match"] = cached.etag;
    const reply = await this.#client.send("GET", raw, headers);
    const context = this.#remember(id, reply);
    if (reply.status === 304 && cached) return { ...cached, context };
    if (reply.status === 200) {
      const value = { data: reply.body, contentType: reply.headers.get("Content-Type") ?? "", etag: reply.headers.get("ETag") ?? "", context };
      this.#client.cache(id, value);
      return value;
    }
    this.#client.cache(id);
    if (reply.status === 404) throw new NoValue(`no value: ${id}`);
    /** @type {Schemas["Siblings"]} */
    const answer = JSON.parse(new TextDecoder().decode(reply.body));
    const siblings = answer.siblings.map((s) => ({
      data: fromBase64(s.value), contentType: s.content_type, etag: s.etag, lastModified: s.last_modified, tombstone: s.tombstone,
    }));
    const resolve = this.#client.resolve;
    if (!resolve) throw new Conflict(siblings, context);
    return { contentType: "", ...resolve(raw, siblings), etag: "", context };
  }

  /**
   * Writes a value in place of all that the session has seen of the key; text as text/plain unless another type is named.
   * Throws SessionFull and RequestError.
   * @param {Bytes} key @param {Bytes} data @param {string} [contentType] @returns {Promise<Written>}
   */
  async put(key, data, contentType = typeof data === "string" ? "text/plain; charset=utf-8" : "") {
    return this.#write("PUT", key, contentType ? { "Content-Type": contentType } : {}, bytes(data));
  }

  /** Deletes all that the session has seen of the key. Deleting what is not there is no error. @param {Bytes} key @returns {Promise<Written>} */
  async delete(key) {
    return this.#write("DELETE", key, {});
  }

  /** @param {string} method @param {Bytes} key @param {Record<string, string>} more @param {Uint8Array} [body] @returns {Promise<Written>} */
  async #write(method, key, more, body) {
    const { raw, id, headers } = this.#begin(key);
    const reply = await this.#client.send(method, raw, { ...headers, ...more }, body);
    this.#remember(id, reply);
    return JSON.parse(new TextDecoder().decode(reply.body));
  }

  /** Keeps room for a key. @param {Bytes} key */
  #begin(key) {
    const raw = bytes(key);
    const id = escape(raw);
    if (!id) throw new TypeError("the key is empty");
    if (!this.#contexts.has(id) && this.#contexts.size >= MAX_SESSION_KEYS) throw new SessionFull(`${MAX_SESSION_KEYS} keys`);
    const context = this.#contexts.get(id) ?? "";
    this.#contexts.set(id, context);
    /** @type {Record<string, string>} */
    const headers = context ? { "Kv-Context": context } : {};
    return { raw, id, headers };
  }

  /** @param {string} id @param {Reply} reply */
  #remember(id, reply) {
    const context = reply.headers.get("Kv-Context") ?? "";
    if (context) this.#contexts.set(id, context);
    return context;
  }
}

/** The same request as a batch of one. @param {string} method @param {string} key @param {string | undefined} quorum @param {Record<string, string>} headers @param {Uint8Array} [body] */
function asBatch(method, key, quorum, headers, body) {
  const { "Kv-Context": context, "Content-Type": content_type, "If-None-Match": _, ...rest } = headers;
  const write = { key, context, request_id: headers["Kv-Request-Id"] };
  const [verb, item] = method === "GET" ? ["Get", { key }] : method === "PUT" ? ["Put", { ...write, content_type, value: toBase64(body) }] : ["Delete", write];
  const batch = JSON.stringify({ items: [item], [method === "GET" ? "r" : "w"]: quorum || undefined });
  return { path: ":batch" + verb, method: "POST", headers: { ...rest, "Content-Type": "application/json" }, body: bytes(batch) };
}

/** What a batch of one says, as the answer of a single request. @param {string} method @param {Reply} reply @returns {Reply} */
function ofBatch(method, reply) {
  const item = JSON.parse(new TextDecoder().decode(reply.body)).results[0];
  const headers = new Headers(item.context ? { "Kv-Context": item.context } : {});
  const body = bytes(JSON.stringify(item.problem?.type ? item.problem : item));
  if (method === "GET" && item.status === 200) {
    headers.set("Content-Type", item.siblings[0].content_type);
    return { status: 200, headers, body: fromBase64(item.siblings[0].value) };
  }
  return { status: item.status, headers, body };
}

/** @param {Response} answer */
async function readAll(answer) {
  const chunks = [];
  let size = 0;
  for (const reader = answer.body?.getReader(); reader; ) {
    const { done, value } = await reader.read();
    if (done) break;
    if ((size += value.length) > MAX_ANSWER) throw new Error(`the answer is longer than ${MAX_ANSWER} bytes`);
    chunks.push(value);
  }
  const all = new Uint8Array(size);
  size = 0;
  for (const chunk of chunks) {
    all.set(chunk, size);
    size += chunk.length;
  }
  return all;
}

/** @param {Bytes} data */
const bytes = (data) => (typeof data === "string" ? new TextEncoder().encode(data) : data);

/** @param {string} text */
const fromBase64 = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

/** @param {Uint8Array} [data] */
const toBase64 = (data) => btoa(Array.from(data ?? [], (b) => String.fromCharCode(b)).join(""));
