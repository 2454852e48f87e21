/**
 * Which gateway is asked, and whether once more. Pure: no clock, no socket, no randomness.
 * @module
 */

/** A failed write that will never become visible. */
export const NOT_APPLIED = "not-applied";
/** A failed write that may be visible, or become so. */
export const IN_DOUBT = "in-doubt";
const FIRST_BACKOFF = 50;
const MAX_WAIT = 10_000;

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
export function order(gateways, key) {
  const scored = gateways.map((g) => ({ g, score: score(new TextEncoder().encode(g), key) }));
  return scored.sort((a, b) => b.score - a.score || (a.g < b.g ? -1 : 1)).map(({ g }) => g);
}

/** @param {Uint8Array} gateway @param {Uint8Array} key */
function score(gateway, key) {
  let h = 2166136261;
  for (const part of [gateway, [0], key]) for (const byte of part) h = Math.imul(h ^ byte, 16777619);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** A key as one segment of a path: every byte but the unreserved ones of RFC 3986 is percent-encoded. @param {Uint8Array} key */
export function escape(key) {
  return Array.from(key, (byte) => {
    const c = String.fromCharCode(byte);
    return /[A-Za-z0-9._~-]/.test(c) ? c : "%" + byte.toString(16).toUpperCase().padStart(2, "0");
  }).join("");
}

/**
 * Whether a write that ended so may have happened. An answer of a server's fault that does not say so is a balancer's, who
 * does not know either.
 * @param {Attempt} a
 */
export function doubtful(a) {
  return a.status === 0 ? a.sent : a.outcome === IN_DOUBT || (!a.outcome && a.status >= 500);
}

/**
 * After how many milliseconds a request is repeated after its nth attempt, from 1, of at most limit; null for never. Other
 * gateways are tried at once where one could not be reached; what a gateway asks for by Retry-After is the least to wait,
 * and a wait above MAX_WAIT is not worth it. jitter is between 0 and 1.
 * @param {Attempt} a @param {number} n @param {number} limit @param {number} gateways @param {boolean} write @param {number} jitter
 */
export function again(a, n, limit, gateways, write, jitter) {
  const worth = [0, 429, 502, 503, 504].includes(a.status) || (write && doubtful(a));
  if (!worth || n >= limit || a.retryAfter > MAX_WAIT) return null;
  if (a.status === 0 && n < gateways) return 0;
  return Math.max(a.retryAfter, Math.min(FIRST_BACKOFF * 2 ** (n - 1), MAX_WAIT) * (0.5 + jitter / 2));
}

/** The header in milliseconds; 0 where it is absent or a date. @param {string | null} text */
export function retryAfter(text) {
  return text && /^[0-9]{1,5}$/.test(text) ? Number(text) * 1000 : 0;
}
