// Tests against a gateway that answers by script.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { after, test } from "node:test";
import { Client, escape, MAX_SESSION_KEYS, order, RequestError, SessionFull } from "../src/index.js";
import { again, doubtful } from "../src/route.js";

const bytes = (text) => new TextEncoder().encode(text);
const servers = [];
after(() => servers.forEach((s) => s.close().closeAllConnections()));

// script starts a gateway that answers with one of the answers after the other, [status, headers, body] or null to break off.
async function script(answers, options) {
  const seen = [];
  const server = createServer(async (req, res) => {
    let body = "";
    for await (const chunk of req) body += chunk;
    seen.push({ method: req.method, url: req.url, headers: req.headers, body });
    const answer = answers[seen.length - 1];
    if (!answer) return void req.socket.destroy();
    res.writeHead(answer[0], answer[1]).end(answer[2]);
  });
  servers.push(server);
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const session = new Client([`http://127.0.0.1:${server.address().port}/`], options).session();
  return { session, seen };
}

const written = (context) => [200, { "Kv-Context": context }, JSON.stringify({ context, siblings: 1, acks: 2, hinted: 0 })];
const fails = (status, outcome) => [status, {}, JSON.stringify({ type: "/problems/x", title: "X", status, outcome })];

test("the order is that of all languages", async () => {
  const golden = JSON.parse(await readFile(new URL("../../testdata/rendezvous.json", import.meta.url), "utf8"));
  assert.ok(golden.orders.length > 20);
  for (const row of golden.orders) {
    const key = Uint8Array.from(Buffer.from(row.key, "base64"));
    assert.deepEqual(order(golden.gateways, key), row.order.map((i) => golden.gateways[i]));
  }
});

test("keys are escaped as one segment", () => {
  for (const [key, want] of [["a/b", "a%2Fb"], ["%2F", "%252F"], ["a+b c", "a%2Bb%20c"], ["ä!'()*", "%C3%A4%21%27%28%29%2A"]]) {
    assert.equal(escape(bytes(key)), want);
  }
  assert.equal(escape(new Uint8Array([255, 0])), "%FF%00");
});

test("what is tried again", () => {
  for (const [name, status, sent, outcome, retryAfter, n, write, want, doubt] of [
    ["no connection, another gateway", 0, false, "", 0, 1, true, 0, false],
    ["no connection anywhere", 0, false, "", 0, 2, true, 100, false],
    ["connection lost", 0, true, "", 0, 1, true, 0, true],
    ["attempts used up", 0, true, "", 0, 4, true, null, true],
    ["overloaded", 429, true, "not-applied", 1000, 1, true, 1000, false],
    ["asks for too much", 503, true, "not-applied", 11000, 1, true, null, false],
    ["deadline of a write", 504, true, "in-doubt", 0, 1, true, 50, true],
    ["disk full, for certain", 507, true, "not-applied", 0, 1, true, null, false],
    ["disk full, in doubt", 507, true, "in-doubt", 0, 1, true, 50, true],
    ["too many siblings", 409, true, "not-applied", 0, 1, true, null, false],
    ["bad key", 400, true, "", 0, 1, false, null, false],
    ["internal error of a read", 500, true, "", 0, 1, false, null, true],
  ]) {
    const attempt = { status, sent, outcome, retryAfter };
    assert.deepEqual([again(attempt, n, 4, 2, write, 1), doubtful(attempt)], [want, doubt], name);
  }
});

test("a write keeps its name", async () => {
  const answers = [written("c1"), fails(503, "not-applied"), null, written("c2"), written("c3")];
  const { session, seen } = await script(answers, { token: "secret", writeQuorum: "all" });
  for (const text of ["one", "two", "three"]) await session.put("a/b", text);
  assert.deepEqual(seen.map((r) => r.body), ["one", "two", "two", "two", "three"]);
  assert.deepEqual(seen.map((r) => r.headers["kv-context"]), [undefined, "c1", "c1", "c1", "c2"]);
  const ids = seen.map((r) => r.headers["kv-request-id"]);
  assert.deepEqual([new Set(ids).size, ids[1], ids[2]], [3, ids[2], ids[3]]);
  for (const r of seen) assert.deepEqual([r.method, r.url, r.headers.authorization], ["PUT", "/v1/kv/a%2Fb?w=all", "Bearer secret"]);
});

test("doubt stays", async () => {
  for (const [answers, want] of [
    [[fails(409, "not-applied")], "not-applied"],
    [[null, fails(409, "not-applied")], "in-doubt"],
    [[fails(504, "in-doubt"), fails(507, "not-applied")], "in-doubt"],
    [[fails(429, "not-applied"), fails(429, "not-applied")], "not-applied"],
  ]) {
    const { session, seen } = await script(answers, { attempts: 2 });
    await assert.rejects(session.delete("k"), (e) => e instanceof RequestError && e.outcome === want);
    assert.equal(seen.length, answers.length);
  }
});

test("the cache is revalidated and bounded", async () => {
  const value = (text, etag, context) => [text ? 200 : 304, { "Kv-Context": context, ETag: etag }, text];
  const answers = [value("v1", '"e1"', "c1"), value("", '"e1"', "c2"), value("v2", '"e2"', "c3"), value("x".repeat(900), '"e3"', "c4"), value("v2", '"e2"', "c5")];
  const { session, seen } = await script(answers, { cacheBytes: 1200 });
  const got = [];
  for (const key of ["k", "k", "k", "other", "k"]) got.push(await session.get(key));
  assert.deepEqual(got.map((v) => new TextDecoder().decode(v.data)), ["v1", "v1", "v2", "x".repeat(900), "v2"]);
  assert.deepEqual(got.map((v) => v.context), ["c1", "c2", "c3", "c4", "c5"]);
  assert.deepEqual(seen.map((r) => r.headers["if-none-match"]), [undefined, '"e1"', '"e1"', undefined, undefined]);
});

test("siblings are resolved", async () => {
  const conflict = [300, { "Kv-Context": "both" }, JSON.stringify({ context: "both", siblings: [{ value: "YQ==" }, { value: "Yg==" }] })];
  const resolve = (key, all) => ({ data: Buffer.concat(all.map((s) => s.data)) });
  const { session, seen } = await script([conflict, written("c")], { resolve });
  const value = await session.get("k");
  await session.put("k", value.data);
  assert.deepEqual([String(value.data), value.context, seen[1].headers["kv-context"], seen[1].body], ["ab", "both", "both", "ab"]);
});

test("a session is bounded", async () => {
  const { session } = await script([]);
  const client = { send: async () => ({ status: 200, headers: new Headers(), body: bytes("{}") }) };
  const full = new session.constructor(client);
  for (let i = 0; i < MAX_SESSION_KEYS; i++) await full.delete(`k${i}`);
  await assert.rejects(full.put("one more", "x"), SessionFull);
  await assert.rejects(full.put("", "x"), TypeError);
});
