// The public HTTP API as this page uses it.

const STORE = "dotring-token";

// Problem is an answer that says what went wrong.
export class Problem extends Error {
  constructor(status, body) {
    super(body.title ? body.title + (body.detail ? ": " + body.detail : "") : "HTTP status " + status);
    this.status = status;
    this.outcome = body.outcome || "";
  }
}

export function token() {
  return sessionStorage.getItem(STORE) || "";
}

export function setToken(value) {
  if (value) sessionStorage.setItem(STORE, value);
  else sessionStorage.removeItem(STORE);
}

// request sends one request, and throws where there is no answer in time. The longest work behind any of them takes 2 s.
async function request(path, options = {}) {
  const headers = { ...options.headers };
  if (token()) headers.Authorization = "Bearer " + token();
  return fetch(path, { cache: "no-store", credentials: "omit", redirect: "error", signal: AbortSignal.timeout(10000), ...options, headers });
}

async function problem(response) {
  let body = {};
  try {
    body = await response.json();
  } catch {
    // A balancer between may answer with anything; the status tells enough.
  }
  return new Problem(response.status, body);
}

async function json(path) {
  const response = await request(path);
  if (!response.ok) throw await problem(response);
  return response.json();
}

export const status = () => json("/v1/cluster/status");
export const nodes = () => json("/v1/cluster/nodes");
export const layout = () => json("/v1/cluster/layout");
export const tasks = () => json("/v1/cluster/tasks");
export const stats = () => json("/v1/cluster/stats");
export const hotKeys = () => json("/v1/cluster/hotKeys");
export const inspect = (key) => json("/v1/cluster/keys/" + escapeKey(key));

// escapeKey writes the bytes of a key as one segment of a path. Two keys cannot be sent by any browser: it takes dots for
// folders, escaped or not.
export function escapeKey(key) {
  const escaped = Array.from(key, (b) =>
    /[A-Za-z0-9._~-]/.test(String.fromCharCode(b)) ? String.fromCharCode(b) : "%" + b.toString(16).toUpperCase().padStart(2, "0")).join("");
  if (escaped === "." || escaped === "..") throw new Error("No browser can ask for this key. Use dotringctl key.");
  return escaped;
}

export function fromBase64(encoded) {
  return Uint8Array.from(atob(encoded), (c) => c.charCodeAt(0));
}

// read returns the values of a key with the context of what was seen: none, one, or siblings.
export async function read(key) {
  const response = await request("/v1/kv/" + escapeKey(key), { headers: { Accept: "application/vnd.dotring.siblings+json, */*;q=0.5" } });
  const context = response.headers.get("Kv-Context");
  if (response.status === 404 && context) return { context, values: [] };
  if (response.status === 300) {
    const body = await response.json();
    const values = body.siblings.map((s) => ({
      bytes: fromBase64(s.value), type: s.content_type, tombstone: s.tombstone, modified: s.last_modified, etag: s.etag }));
    return { context: body.context, values };
  }
  if (response.status !== 200) throw await problem(response);
  return { context, values: [{
    bytes: new Uint8Array(await response.arrayBuffer()), type: response.headers.get("Content-Type") || "", tombstone: false,
    modified: response.headers.get("Last-Modified"), etag: (response.headers.get("ETag") || "").replaceAll('"', "") }] };
}

// put replaces what context covers by one value.
export async function put(key, bytes, type, context) {
  return write(key, { method: "PUT", body: bytes, headers: { "Content-Type": type || "application/octet-stream", "Kv-Context": context } });
}

// remove replaces what context covers by a deletion.
export async function remove(key, context) {
  return write(key, { method: "DELETE", headers: { "Kv-Context": context } });
}

async function write(key, options) {
  const response = await request("/v1/kv/" + escapeKey(key), options);
  if (!response.ok) throw await problem(response);
  return response.json();
}
