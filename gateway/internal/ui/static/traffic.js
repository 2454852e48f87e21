// What goes through the gateway that answers: how many operations there are and how long they take, and which keys take the most.

import { byId, count, el, percent, svg, text } from "./dom.js";

const HOT = 0.1; // share of all requests from which a key needs a look
const SHOWN = 10;

// hotRow makes a row of a key, whose name leads to what its replicas hold.
function hotRow(k) {
  const encoded = k.key_base64 !== "";
  const address = encoded ? "#keys64/" + encodeURIComponent(k.key_base64) : "#keys/" + encodeURIComponent(k.key);
  return el("tr", { "data-id": address },
    el("th", { scope: "row", class: "key" }, el("a", { href: address }, encoded ? k.key_base64 + " (base64)" : k.key)),
    el("td", { class: "n" }, el("span", { class: "state" })), el("td", { class: "n" }), el("td", { class: "n" }));
}

// showHot keeps the rows of keys that are still there, so that one that has the focus keeps it.
export function showHot(answer) {
  const body = byId("hot").tBodies[0];
  const rows = new Map(Array.from(body.rows, (r) => [r.dataset.id, r]));
  const keys = answer.keys.slice(0, SHOWN);
  byId("hot").hidden = keys.length === 0;
  text(byId("hot-none"), keys.length ? "" : "No key stands out.");
  keys.forEach((k, i) => {
    const fresh = hotRow(k), row = rows.get(fresh.dataset.id) || fresh;
    rows.delete(fresh.dataset.id);
    const badge = row.cells[1].firstChild;
    badge.className = "state " + (k.share >= HOT ? "warn" : "none");
    text(badge, percent(k.share));
    text(row.cells[2], count(k.reads_per_second.toFixed(1)));
    text(row.cells[3], count(k.writes_per_second.toFixed(1)));
    if (body.rows[i] !== row) body.insertBefore(row, body.rows[i] || null);
  });
  for (const row of rows.values()) row.remove();
}

const KEPT = 60; // answers that the line of an operation is drawn from
const WIDTH = 120, HEIGHT = 24; // of the line
const rates = new Map(); // by operation

// line draws rates from the oldest to the newest, the largest at the top.
function line(values) {
  const most = Math.max(...values, 1);
  const points = values.map((v, i) => (WIDTH * (KEPT - values.length + i) / (KEPT - 1)).toFixed(1) + "," + (HEIGHT - 1 - (HEIGHT - 2) * v / most).toFixed(1));
  return svg("svg", { class: "line", viewBox: "0 0 " + WIDTH + " " + HEIGHT, width: WIDTH, height: HEIGHT, role: "img",
    "aria-label": "the last minute, at most " + rate(most) + " a second" }, svg("polyline", { points: points.join(" ") }));
}

function rate(perSecond) {
  return perSecond === 0 ? "0" : perSecond < 10 ? perSecond.toFixed(1) : count(Math.round(perSecond));
}

// milliseconds writes a latency; none where there was no operation.
export function milliseconds(seconds) {
  if (seconds === 0) return "–";
  const ms = 1000 * seconds;
  return (ms < 10 ? ms.toFixed(2) : ms < 100 ? ms.toFixed(1) : count(Math.round(ms))) + " ms";
}

export function showStats(answer) {
  const body = byId("traffic").tBodies[0];
  text(byId("traffic-of"), "Through " + answer.gateway + ", over the last " + answer.window_seconds + " s. Each gateway counts its own.");
  answer.operations.forEach((o, i) => {
    const values = rates.get(o.operation) || [];
    values.push(o.per_second);
    rates.set(o.operation, values.slice(-KEPT));
    const row = body.rows[i] || body.appendChild(el("tr", { "data-op": o.operation }, el("th", { scope: "row" }, o.operation), el("td", { class: "n" }),
      el("td"), el("td", { class: "n" }, el("span", { class: "state" })), el("td", { class: "n" }), el("td", { class: "n" })));
    text(row.cells[1], rate(o.per_second));
    row.cells[2].replaceChildren(line(rates.get(o.operation)));
    const failed = row.cells[3].firstChild;
    failed.className = "state " + (o.failed_per_second > 0 ? "bad" : "none");
    text(failed, rate(o.failed_per_second));
    text(row.cells[4], milliseconds(o.p50_seconds));
    text(row.cells[5], milliseconds(o.p99_seconds));
  });
}
