// What goes through the gateway that answers: the keys that take the most requests.

import { byId, count, el, percent, text } from "./dom.js";

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
