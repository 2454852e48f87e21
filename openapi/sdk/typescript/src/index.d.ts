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
export const MAX_SESSION_KEYS: 10000;
/** A key was never written, or is deleted. */
export class NoValue extends Error {
}
/** A session knows MAX_SESSION_KEYS keys already, and nothing was sent: to forget one would let a write replace what was never seen. */
export class SessionFull extends Error {
}
/** A read found siblings. A write with its context, as the next one of the same session has, replaces them all. */
export class Conflict extends Error {
    /** @param {Sibling[]} siblings @param {string} context */
    constructor(siblings: Sibling[], context: string);
    siblings: Sibling[];
    context: string;
}
/**
 * A request failed. status is 0 where no answer came. outcome is NOT_APPLIED or IN_DOUBT for a write, with all its attempts in
 * mind, and empty for a read.
 */
export class RequestError extends Error {
    /** @param {number} status @param {Partial<Problem>} problem @param {string} outcome @param {unknown} [cause] */
    constructor(status: number, problem: Partial<Problem>, outcome: string, cause?: unknown);
    status: number;
    problem: Partial<{
        type: string;
        title: string;
        status: number;
        detail: string;
        outcome?: import("./schema.d.ts").components["schemas"]["Outcome"];
        replicas?: import("./schema.d.ts").components["schemas"]["ReplicaReport"][];
        request_id: import("./schema.d.ts").components["schemas"]["RequestID"];
    }>;
    outcome: string;
}
/** Speaks to several gateways that lead to one cluster. */
export class Client {
    /** @param {string[]} gateways http or https URLs, one at least @param {Options} [options] */
    constructor(gateways: string[], options?: Options);
    /** A new session: one flow of work, such as a user's request. */
    session(): Session;
    /** @internal */
    get resolve(): ((key: Uint8Array, siblings: Sibling[]) => {
        data: Uint8Array;
        contentType?: string;
    }) | undefined;
    /**
     * Sends a request under one request id until it is answered, or trying again is of no use.
     * @internal @param {string} method @param {Uint8Array} key @param {Record<string, string>} headers @param {Uint8Array} [body]
     * @returns {Promise<Reply>}
     */
    send(method: string, key: Uint8Array, headers: Record<string, string>, body?: Uint8Array): Promise<Reply>;
    /** @internal @param {string} id @returns {Value | undefined} */
    cached(id: string): Value | undefined;
    /** Replaces what is held of a key; without a value it only removes it. @internal @param {string} id @param {Value} [value] */
    cache(id: string, value?: Value): void;
    #private;
}
/**
 * Remembers the context of each key it reads and writes, and sends it: its writes replace exactly what it has seen, and its
 * reads never show less than that. Work that must not be taken for having seen what other work saw needs a session of its own.
 * The keys `.` and `..`, which fetch folds in paths, go by batch, and reads of these two do not send the context.
 */
export class Session {
    /** @internal @param {Client} client */
    constructor(client: Client);
    /** Reads a key. Throws NoValue, Conflict where the client has no resolve, SessionFull and RequestError. @param {Bytes} key @returns {Promise<Value>} */
    get(key: Bytes): Promise<Value>;
    /**
     * Writes a value in place of all that the session has seen of the key; text as text/plain unless another type is named.
     * Throws SessionFull and RequestError.
     * @param {Bytes} key @param {Bytes} data @param {string} [contentType] @returns {Promise<Written>}
     */
    put(key: Bytes, data: Bytes, contentType?: string): Promise<Written>;
    /** Deletes all that the session has seen of the key. Deleting what is not there is no error. @param {Bytes} key @returns {Promise<Written>} */
    delete(key: Bytes): Promise<Written>;
    #private;
}
export type Schemas = import("./schema.d.ts").components["schemas"];
export type Written = Schemas["Written"];
export type Problem = Schemas["Problem"];
export type Sibling = {
    data: Uint8Array;
    contentType: string;
    etag: string;
    lastModified: string;
    tombstone: boolean;
};
/**
 * etag is empty for a merged value.
 */
export type Value = {
    data: Uint8Array;
    contentType: string;
    etag: string;
    context: string;
};
/**
 * Text is UTF-8.
 */
export type Bytes = string | Uint8Array;
export type Reply = {
    status: number;
    headers: Headers;
    body: Uint8Array;
};
/**
 * All are optional. token is sent as a bearer token; readQuorum and writeQuorum as r and w: a number, one, quorum or all.
 * resolve merges siblings into the value that a read returns, instead of a Conflict; nothing is written by that. cacheBytes
 * bounds the cache of values, of which each use is revalidated by ETag; 0 has none. attempts is how often a request is tried
 * at most, and timeout bounds each attempt, in milliseconds.
 */
export type Options = {
    token?: string;
    readQuorum?: string;
    writeQuorum?: string;
    cacheBytes?: number;
    attempts?: number;
    timeout?: number;
    resolve?: (key: Uint8Array, siblings: Sibling[]) => {
        data: Uint8Array;
        contentType?: string;
    };
};
import { escape } from "./route.js";
import { IN_DOUBT } from "./route.js";
import { NOT_APPLIED } from "./route.js";
import { order } from "./route.js";
export { escape, IN_DOUBT, NOT_APPLIED, order };
