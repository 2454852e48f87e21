// The cluster at a glance: what it promises, what to look at, and each node.

import { age, byId, bytes, count, el, percent, text } from "./dom.js";
import { milliseconds } from "./traffic.js";

const SUSPECT = 8; // phi from which requests pass a node over

// state says in one word how a node is, and how bad that is.
export function state(node) {
  if (node.status === "failed") return ["failed", "bad"];
  if (!node.connected) return ["unreachable", "bad"];
  if (node.error) return ["no answer", "bad"];
  if (node.phi >= SUSPECT) return ["suspected", "warn"];
  if (node.status !== "alive") return [node.status, "warn"];
  return ["alive", "ok"];
}

let gossip = "–"; // as the nodes that answer were last seen to agree

// showGossip says whether all nodes that answer see the same of all members.
export function showGossip(nodes) {
  const views = new Map(); // digest -> how many nodes
  for (const n of nodes) if (n.gossip_digest) views.set(n.gossip_digest, (views.get(n.gossip_digest) || 0) + 1);
  const asked = [...views.values()].reduce((a, b) => a + b, 0);
  gossip = asked === 0 ? "–" : views.size === 1 ? "converged, " + asked + " agree" : "converging, " + views.size + " views";
}

export function showStatus(s) {
  const promise = byId("promise");
  text(promise, s.promise);
  promise.className = "banner " + (s.alive < s.members || s.warnings.length ? "warn" : "ok");
  const warnings = byId("warnings");
  if (warnings.dataset.shown !== JSON.stringify(s.warnings)) {
    warnings.dataset.shown = JSON.stringify(s.warnings);
    warnings.replaceChildren(...s.warnings.map((w) => el("li", {}, w)));
  }
  const facts = [
    ["Members", s.alive + " of " + s.members + " alive"],
    ["Copies", s.replicas === s.replicas_configured ? String(s.replicas) : s.replicas + " of " + s.replicas_configured],
    ["Quorums", "r=" + s.read_quorum + ", w=" + s.write_quorum],
    ["Layout", "epoch " + s.settled.epoch + (s.changing ? " → " + s.newest.epoch + ", changing" : "")],
    ["Gossip", gossip],
    ["Cluster", s.cluster.slice(0, 8)],
  ];
  byId("facts").replaceChildren(...facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  text(byId("about"), "Seen by " + s.gateway + ", version " + s.version);
}

// comparedAgo returns for each node how long ago its oldest comparison with another owner began.
function comparedAgo(tasks) {
  const ages = new Map();
  for (const t of tasks) {
    if (t.kind === "compare" && t.age_seconds > 0) ages.set(t.node, Math.max(ages.get(t.node) || 0, t.age_seconds));
  }
  return ages;
}

// showNodes keeps one row per node, and changes only what is new: a row that has the focus or a selection stays.
export function showNodes(nodes, tasks) {
  const body = byId("nodes").tBodies[0];
  const rows = new Map(Array.from(body.rows, (r) => [r.dataset.id, r]));
  const ages = comparedAgo(tasks);
  const sorted = [...nodes].sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
  sorted.forEach((node, i) => {
    const row = rows.get(node.id) || emptyRow(node);
    rows.delete(node.id);
    showNode(row, node, ages.get(node.name));
    if (body.rows[i] !== row) body.insertBefore(row, body.rows[i] || null);
  });
  for (const row of rows.values()) row.remove();
}

function emptyRow(node) {
  const row = el("tr", { "data-id": node.id });
  row.append(el("th", { scope: "row" }), el("td", {}, el("span", { class: "state" })), el("td"));
  for (let i = 0; i < 9; i++) row.append(el("td", { class: "n" }));
  return row;
}

function showNode(row, node, compared) {
  const [word, kind] = state(node);
  const answers = !node.error;
  row.dataset.state = word;
  row.title = node.error || "";
  const badge = row.cells[1].firstChild;
  badge.className = "state " + kind;
  text(badge, word);
  const cells = [node.name, null, node.zone || "–", node.phi < 100 ? node.phi.toFixed(2) : "> 100",
    node.connected ? count(Math.round(node.answers_per_second)) + "/s" : "–",
    node.connected ? milliseconds(node.read_p95_seconds) : "–", answers ? count(node.keys) : "–", answers ? bytes(node.disk_bytes) : "–",
    answers ? (Number(node.hints) ? count(node.hints) + " (" + bytes(node.hint_bytes) + ")" : "0") : "–",
    compared === undefined ? "–" : age(compared), percent(node.share), answers ? node.acked_epoch : "–"];
  cells.forEach((value, i) => { if (value !== null) text(row.cells[i], value); });
}
