/**
 * How one request ended that did not succeed: status is 0 where no answer came, sent tells whether the gateway may have seen
 * it, outcome what the answer says of a write, retryAfter how many milliseconds it asks to wait.
 * @typedef {{status: number, sent: boolean, outcome: string, retryAfter: number}} Attempt
 */
/**
 * The gateways in the order in which they are tried for a key, by rendezvous hashing: all clients with the same list, of every
 * language, read one key through one gateway, and a gateway that leaves moves its keys alone. Scores are FNV-1a over the
 * gateway, a zero byte and the key, finished as MurmurHash3 does.
 * @param {readonly string[]} gateways @param {Uint8Array} key
 */
export function order(gateways: readonly string[], key: Uint8Array): string[];
/** A key as one segment of a path: every byte but the unreserved ones of RFC 3986 is percent-encoded. @param {Uint8Array} key */
export function escape(key: Uint8Array): string;
/**
 * Whether a write that ended so may have happened. An answer of a server's fault that does not say so is a balancer's, who
 * does not know either.
 * @param {Attempt} a
 */
export function doubtful(a: Attempt): boolean;
/**
 * After how many milliseconds a request is repeated after its nth attempt, from 1, of at most limit; null for never. Other
 * gateways are tried at once where one could not be reached; what a gateway asks for by Retry-After is the least to wait,
 * and a wait above MAX_WAIT is not worth it. jitter is between 0 and 1.
 * @param {Attempt} a @param {number} n @param {number} limit @param {number} gateways @param {boolean} write @param {number} jitter
 */
export function again(a: Attempt, n: number, limit: number, gateways: number, write: boolean, jitter: number): number | null;
/** The header in milliseconds; 0 where it is absent or a date. @param {string | null} text */
export function retryAfter(text: string | null): number;
/**
 * Which gateway is asked, and whether once more. Pure: no clock, no socket, no randomness.
 * @module
 */
/** A failed write that will never become visible. */
export const NOT_APPLIED: "not-applied";
/** A failed write that may be visible, or become so. */
export const IN_DOUBT: "in-doubt";
/**
 * How one request ended that did not succeed: status is 0 where no answer came, sent tells whether the gateway may have seen
 * it, outcome what the answer says of a write, retryAfter how many milliseconds it asks to wait.
 */
export type Attempt = {
    status: number;
    sent: boolean;
    outcome: string;
    retryAfter: number;
};
