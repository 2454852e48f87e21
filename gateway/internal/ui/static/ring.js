// The ring as it is drawn: each node's stretches of slots, the zones inside, and what everybody owns.

import { byId, el, percent, svg } from "./dom.js";
import { state } from "./overview.js";

const SLOTS = 1 << 20;
const COLOURS = 12; // classes c0 to c11 of the style sheet

function point(slot, radius) {
  const angle = 2 * Math.PI * slot / SLOTS - Math.PI / 2;
  return (radius * Math.cos(angle)).toFixed(2) + " " + (radius * Math.sin(angle)).toFixed(2);
}

// arc is the part of a ring between two slots, clockwise, as a path.
function arc(from, to, inner, outer) {
  const end = to - from >= SLOTS ? to - 1 : to;
  const large = end - from > SLOTS / 2 ? 1 : 0;
  return `M${point(from, outer)}A${outer} ${outer} 0 ${large} 1 ${point(end, outer)}` +
    `L${point(end, inner)}A${inner} ${inner} 0 ${large} 0 ${point(from, inner)}Z`;
}

// stretches returns [from, to, member] for every token: the slots after the one before, up to it.
export function stretches(members) {
  const tokens = members.flatMap((m) => m.tokens.map((t) => [t, m])).sort((a, b) => a[0] - b[0]);
  return tokens.map(([token, member], i) => {
    const before = i > 0 ? tokens[i - 1][0] : tokens[tokens.length - 1][0] - SLOTS;
    return [before + 1, token + 1, member];
  });
}

let drawn = "";

// showRing draws the newest layout again when it has changed, and each time marks the nodes that do not work.
export function showRing(layouts, nodes) {
  const layout = layouts[layouts.length - 1];
  if (!layout) return;
  const members = [...layout.members].sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
  const shares = new Map(nodes.map((n) => [n.id, n.share]));
  if (drawn !== layout.ref.hash + members.map((m) => shares.get(m.id)).join()) {
    drawn = layout.ref.hash + members.map((m) => shares.get(m.id)).join();
    byId("ring").replaceChildren(picture(members), legend(members, shares));
  }
  for (const node of nodes) {
    const [word, kind] = state(node);
    for (const part of byId("ring").querySelectorAll("[data-node]")) {
      if (part.dataset.node !== node.id) continue;
      part.classList.toggle("down", kind === "bad");
      const note = part.querySelector(".note");
      if (note && note.textContent !== (kind === "ok" ? "" : word)) note.textContent = kind === "ok" ? "" : word;
    }
  }
}

function zonesOf(members) {
  return [...new Set(members.map((m) => m.zone))].sort();
}

function picture(members) {
  const zones = zonesOf(members), named = zones.some((z) => z !== "");
  const byNode = new Map(members.map((m) => [m.id, ""])), byZone = new Map(zones.map((z) => [z, ""]));
  for (const [from, to, member] of stretches(members)) {
    byNode.set(member.id, byNode.get(member.id) + arc(from, to, 74, 97));
    byZone.set(member.zone, byZone.get(member.zone) + arc(from, to, 64, 71));
  }
  const label = "Ring of " + members.length + " nodes" + (named ? " in " + zones.length + " zones" : "");
  const out = svg("svg", { viewBox: "-100 -100 200 200", role: "img", "aria-label": label });
  members.forEach((m, i) => out.append(svg("path", { d: byNode.get(m.id), class: "slice c" + i % COLOURS, "data-node": m.id },
    svg("title", {}, m.name + (m.zone ? ", zone " + m.zone : "")))));
  if (named) {
    zones.forEach((z, i) => out.append(svg("path", { d: byZone.get(z), class: "zone z" + i % 4 }, svg("title", {}, "zone " + (z || "none")))));
  }
  out.append(svg("text", { y: -3, class: "big" }, members.length), svg("text", { y: 13 }, members.length === 1 ? "node" : "nodes"));
  return out;
}

function legend(members, shares) {
  const own = new Map(members.map((m) => [m.id, 0]));
  for (const [from, to, member] of stretches(members)) own.set(member.id, own.get(member.id) + (to - from) / SLOTS);
  const zones = zonesOf(members);
  const rows = members.map((m, i) => {
    const share = shares.get(m.id);
    const bar = svg("svg", { class: "bar", viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" },
      svg("rect", { class: "track", width: 100, height: 8 }),
      svg("rect", { class: "c" + i % COLOURS, width: Math.max(0.5, 100 * (share || 0)), height: 8 }));
    return el("tr", { "data-node": m.id },
      el("th", { scope: "row" }, svg("svg", { class: "key", viewBox: "0 0 10 10", "aria-hidden": "true" },
        svg("rect", { class: "c" + i % COLOURS, width: 10, height: 10, rx: 2 })), m.name, " ", el("span", { class: "note" })),
      el("td", {}, m.zone ? el("span", { class: "zonename z" + zones.indexOf(m.zone) % 4 }, m.zone) : "–"),
      el("td", { class: "n" }, m.tokens.length), el("td", { class: "n" }, percent(own.get(m.id))),
      el("td", { class: "n" }, share === undefined ? "–" : percent(share)), el("td", {}, bar));
  });
  const head = [["Node"], ["Zone"], ["Tokens", "n"], ["First owner of", "n"], ["Holds", "n"], [""]];
  return el("div", { class: "scroll" }, el("table", { class: "legend" },
    el("caption", {}, "What each node owns"),
    el("thead", {}, el("tr", {}, head.map(([name, c]) => name ? el("th", { scope: "col", class: c }, name) : el("td")))),
    el("tbody", {}, rows)));
}
