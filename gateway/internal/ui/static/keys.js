// The key inspector: what each replica holds of a key, its siblings side by side, and how to resolve them.

import * as api from "./api.js";
import { clockOf, merge, standing } from "./causal.js";
import { byId, bytes, el, text } from "./dom.js";
import { graph } from "./graph.js";

const SHOWN = 16384; // characters of a value

const actors = new Map(); // names of the nodes' present actors
let current = null; // { key, context, values }

// noteActors takes the nodes' names, so that clocks can be read.
export function noteActors(nodes) {
  for (const n of nodes) if (n.actor) actors.set(n.actor, n.name);
}

// named waits for names where there are none yet. Without them, clocks have the actors' own.
async function named() {
  if (actors.size) return;
  try {
    noteActors((await api.nodes()).nodes);
  } catch {
    // The view of the nodes says why.
  }
}

function nameOf(actor) {
  return actors.has(actor) ? actors.get(actor) : actor.slice(0, 8) + "…";
}

function say(message, bad) {
  text(byId("said"), message);
  byId("said").className = bad ? "bad" : "";
}

function parseKey() {
  const input = byId("key").value;
  const key = byId("key-base64").checked ? api.fromBase64(input) : new TextEncoder().encode(input);
  if (key.length < 1 || key.length > 250) throw new Error("A key has 1 to 250 bytes; this one has " + key.length + ".");
  return key;
}

// look shows a key. What is on the screen stays until there is something to put in its place.
export async function look(note) {
  try {
    const key = parseKey();
    say("Asking…");
    // First what replicas hold, then the read: it begins to repair them.
    const [held] = await Promise.all([api.inspect(key), named()]);
    const seen = await api.read(key);
    current = { key, ...seen };
    show(current, held);
    const live = seen.values.filter((v) => !v.tombstone).length;
    const found = seen.values.length > 1 ? seen.values.length + " siblings: a conflict" : live ? "One value" : "No value";
    say((note ? note + " " : "") + found + ".");
  } catch (err) {
    say(explain(err), true);
  }
}

function explain(err) {
  if (err instanceof DOMException && err.name === "InvalidCharacterError") return "That is not base64.";
  return err.message + (err.outcome ? " (" + err.outcome + ")" : "");
}

function show(seen, held) {
  const asked = held.replicas.filter((r) => r.state === "record");
  const dots = merge(asked);
  byId("inspection").replaceChildren(values(seen), replicas(held, dots), clocks(asked, dots));
}

// values shows what a read answers with, each with what can be done about it.
function values(seen) {
  const conflict = seen.values.length > 1;
  const cards = seen.values.map((v, i) => valueCard(v, i, conflict));
  const fresh = el("button", { type: "button", id: "write-new", click: () => edit("", "text/plain") }, seen.values.length ? "Write another value…" : "Write a value…");
  const gone = el("button", { type: "button", id: "delete-key", class: "danger", click: confirmDelete }, "Delete…");
  return el("section", { "aria-labelledby": "h-values" },
    el("h3", { id: "h-values" }, conflict ? "Siblings: choose one, or write what both should have been" : "Value"),
    seen.values.length ? el("div", { class: "cards" }, cards) : el("p", {}, "There is no value."),
    el("p", { class: "row" }, fresh, seen.values.some((v) => !v.tombstone) ? gone : null),
    el("div", { id: "editor" }));
}

function valueCard(v, i, conflict) {
  const title = v.tombstone ? "Deletion" : "Value " + (i + 1);
  const readable = decode(v.bytes);
  const buttons = [];
  if (conflict) {
    const keep = v.tombstone ? confirmDelete : () => resolve(() => api.put(current.key, v.bytes, v.type, current.context), "Resolved.");
    buttons.push(el("button", { type: "button", class: "keep", "data-index": i, click: keep, "aria-label": "Keep " + title }, v.tombstone ? "Keep deleted…" : "Keep this one"));
  }
  if (!v.tombstone && readable !== null) {
    buttons.push(el("button", { type: "button", class: "edit", "data-index": i, click: () => edit(readable, v.type), "aria-label": "Edit " + title }, "Edit…"));
  }
  return el("article", { class: "card", "aria-label": title },
    el("h4", {}, title),
    el("p", { class: "hint" }, v.tombstone ? "" : (v.type || "no type") + " · " + bytes(v.bytes.length) + " · ", v.modified ? new Date(v.modified).toLocaleString("en-GB") : ""),
    v.tombstone ? null : preview(v.bytes, readable),
    el("p", { class: "row" }, buttons));
}

// decode returns the text of bytes, or null where they are none.
function decode(value) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(value);
  } catch {
    return null;
  }
}

function preview(value, readable) {
  if (readable === null) {
    const hex = Array.from(value.subarray(0, 256), (b) => b.toString(16).padStart(2, "0")).join(" ");
    return el("pre", { class: "value", tabindex: 0 }, hex + (value.length > 256 ? " …" : ""));
  }
  return el("pre", { class: "value", tabindex: 0 }, readable.length > SHOWN ? readable.slice(0, SHOWN) + "\n… the rest is not shown" : readable);
}

function edit(value, type) {
  const area = el("textarea", { id: "new-value", rows: 8, spellcheck: "false" });
  area.value = value;
  const kind = el("input", { id: "new-type", autocomplete: "off", spellcheck: "false" });
  kind.value = type;
  const form = el("form", { class: "editor", submit: (e) => {
    e.preventDefault();
    resolve(() => api.put(current.key, new TextEncoder().encode(area.value), kind.value, current.context), "Written.");
  } }, el("label", { for: "new-value" }, "New value"), area, el("label", { for: "new-type" }, "Content type"), kind,
  el("p", { class: "row" }, el("button", { type: "submit", id: "save" }, "Write"),
    el("button", { type: "button", click: () => byId("editor").replaceChildren() }, "Cancel")));
  byId("editor").replaceChildren(form);
  area.focus();
}

function confirmDelete() {
  const dialog = byId("delete-dialog");
  dialog.returnValue = "";
  dialog.onclose = () => {
    if (dialog.returnValue === "delete") resolve(() => api.remove(current.key, current.context), "Deleted.");
  };
  dialog.showModal();
}

// resolve carries a write out once: its buttons are off until it has an answer.
async function resolve(write, done) {
  const buttons = byId("inspection").querySelectorAll("button");
  for (const b of buttons) b.disabled = true;
  try {
    say("Writing…");
    const answer = await write();
    await look(done + " " + answer.acks + " machines have it on disk.");
    byId("said").focus();
  } catch (err) {
    say(explain(err), true);
    for (const b of buttons) b.disabled = false;
  }
}

function replicas(held, dots) {
  const rows = held.replicas.map((r) => {
    const kind = r.state === "failed" ? "bad" : r.state === "record" && standing(r, dots) === "in step" ? "ok" : r.role === "primary" ? "warn" : "none";
    const word = r.state === "record" ? standing(r, dots) : r.state;
    const held = r.siblings.map((s) => el("li", {}, s.tombstone ? "deletion" : s.content_type + ", " + bytes(s.value_bytes), el("span", { class: "hint" }, " " + nameOf(s.actor) + ":" + s.counter)));
    return el("tr", {}, el("th", { scope: "row" }, r.name, r.zone ? el("span", { class: "hint" }, " " + r.zone) : null), el("td", {}, r.role),
      el("td", {}, el("span", { class: "state " + kind }, word)), el("td", {}, el("ul", { class: "plain" }, held)),
      el("td", { class: "n" }, r.record_bytes ? bytes(r.record_bytes) : "–"), el("td", { class: "mono" }, r.digest.slice(0, 8) || "–"),
      el("td", {}, [r.error, r.marked ? "about to be removed" : "", r.siblings.some((s) => s.tombstone) ? r.why : ""].filter(Boolean).join("; ")));
  });
  const head = [["Node"], ["Role"], ["Record"], ["Holds"], ["Size", "n"], ["Digest"], ["Note"]];
  return el("section", { "aria-labelledby": "h-replicas" }, el("h3", { id: "h-replicas" }, "Preference list"),
    el("p", { class: "hint" }, "Slot " + held.slot + " of 1,048,576, layout of epoch " + held.layout.epoch + "."),
    el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Preference list" }, el("table", { id: "replicas" },
      el("thead", {}, el("tr", {}, head.map(([h, c]) => el("th", { scope: "col", class: c }, h)))), el("tbody", {}, rows))));
}

// clocks shows the vector clocks as numbers, and as a graph.
function clocks(asked, dots) {
  const all = [...new Set(asked.flatMap((r) => r.clock.map((c) => c.actor)))];
  if (!all.length) return el("section");
  const rows = all.map((actor) => {
    const counters = asked.map((r) => clockOf(r).get(actor) || 0n);
    const most = counters.reduce((a, b) => (a > b ? a : b), 0n);
    const writes = [...dots.values()].filter((d) => d.actor === actor && d.live).map((d) => d.counter).join(", ");
    return el("tr", {}, el("th", { scope: "row", title: actor }, nameOf(actor)),
      counters.map((c) => el("td", { class: "n" + (c < most ? " behind" : "") }, c)), el("td", { class: "n" }, writes || "–"));
  });
  const head = [el("th", { scope: "col" }, "Actor"), ...asked.map((r) => el("th", { scope: "col", class: "n" }, r.name)), el("th", { scope: "col", class: "n" }, "Siblings")];
  return el("section", { "aria-labelledby": "h-clocks" }, el("h3", { id: "h-clocks" }, "Vector clocks"),
    el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Vector clocks" }, el("table", { id: "clocks" }, el("thead", {}, el("tr", {}, head)), el("tbody", {}, rows))),
    el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Causal graph" }, graph(asked, dots, nameOf)),
    el("p", { class: "hint" }, "Each lane is one actor: one opening of a node's store. ● value, ■ deletion, hollow: superseded. " +
      "A clock covers every write to the left of its line; a write right of it has not reached that replica."));
}

// start listens to the form; open(fragment) shows the key that an address names.
export function start(goTo) {
  byId("lookup").addEventListener("submit", (e) => {
    e.preventDefault();
    const prefix = byId("key-base64").checked ? "#keys64/" : "#keys/";
    const fragment = prefix + encodeURIComponent(byId("key").value);
    if (location.hash === fragment) look();
    else goTo(fragment);
  });
}

export function open(fragment) {
  const [, kind, name] = /^#(keys|keys64)\/(.+)$/s.exec(fragment) || [];
  if (!name) return;
  try {
    byId("key").value = decodeURIComponent(name);
  } catch {
    return; // an address that somebody mistyped
  }
  byId("key-base64").checked = kind === "keys64";
  look();
}

