// The causal graph of a key: a lane for each actor, its writes along it, and each clock as the line that it reaches.

import { clockOf, versions } from "./causal.js";
import { svg } from "./dom.js";

const LEFT = 120, STEP = 84, LANE = 58, TOP = 34;

// ranks returns for each actor the counters that matter, in order: writes that are held, and where clocks end.
function ranks(replicas, dots) {
  const lanes = new Map();
  const add = (actor, counter) => {
    if (counter === 0n) return;
    if (!lanes.has(actor)) lanes.set(actor, new Set());
    lanes.get(actor).add(counter);
  };
  for (const d of dots.values()) add(d.actor, d.counter);
  for (const r of replicas) for (const [actor, counter] of clockOf(r)) add(actor, counter);
  for (const [actor, set] of lanes) lanes.set(actor, [...set].sort((a, b) => (a < b ? -1 : 1)));
  return lanes;
}

// graph draws it; nameOf gives an actor a name for people. A write lies left of the line of each clock that covers it.
export function graph(replicas, dots, nameOf) {
  const lanes = ranks(replicas, dots), actors = [...lanes.keys()], clocks = versions(replicas);
  const most = Math.max(1, ...[...lanes.values()].map((l) => l.length));
  const width = LEFT + most * STEP + 30, height = TOP + actors.length * LANE + 14 * clocks.length + 12;
  const x = (rank) => LEFT + rank * STEP + STEP / 2;
  const y = (lane) => TOP + lane * LANE + LANE / 2;
  const out = svg("svg", { viewBox: `0 0 ${width} ${height}`, class: "graph", role: "img",
    "aria-label": "Causal graph: " + dots.size + " writes by " + actors.length + " actors, " + clocks.length + " different clocks" });
  out.style.maxWidth = width + "px";
  actors.forEach((actor, i) => {
    out.append(svg("text", { x: 6, y: y(i) + 4, class: "lane" }, nameOf(actor), svg("title", {}, actor)),
      svg("line", { x1: LEFT, x2: width - 20, y1: y(i), y2: y(i), class: "lane" }));
    for (const [rank, counter] of lanes.get(actor).entries()) out.append(event(dots.get(actor + ":" + counter), counter, x(rank), y(i)));
  });
  clocks.forEach((v, n) => out.append(frontier(v, n, actors, lanes, x, y, height - 14 * (clocks.length - n) + 4)));
  return out;
}

function event(dot, counter, cx, cy) {
  if (!dot) return svg("g", { class: "event gone" }, svg("title", {}, "Write " + counter + ": superseded, and held nowhere"),
    svg("circle", { cx, cy, r: 4 }), svg("text", { x: cx, y: cy - 12 }, counter));
  const what = dot.sibling.tombstone ? "deletion" : "value";
  const kind = (dot.live ? "live " : "stale ") + what;
  const shape = dot.sibling.tombstone ? svg("rect", { x: cx - 8, y: cy - 8, width: 16, height: 16 }) : svg("circle", { cx, cy, r: 9 });
  return svg("g", { class: "event " + kind }, svg("title", {}, `Write ${counter}: ${kind}, held by ${dot.on.join(", ")}`), shape,
    svg("text", { x: cx, y: cy - 14 }, counter));
}

// frontier is a clock as a line through all lanes, right of the last write that it covers in each.
function frontier(version, n, actors, lanes, x, y, labelY) {
  const xs = actors.map((actor) => {
    const covered = lanes.get(actor).filter((c) => c <= (version.clock.get(actor) || 0n)).length;
    return x(covered - 1) + STEP / 2 - 20 + 6 * n;
  });
  const points = xs.flatMap((px, i) => [[px, y(i) - LANE / 2 + 4], [px, y(i) + LANE / 2 - 4]]);
  points.push([xs[xs.length - 1], labelY - 10]);
  return svg("g", { class: "clock k" + n % 4 }, svg("title", {}, "The clock of " + version.names.join(", ") + " covers all to the left"),
    svg("polyline", { points: points.map((p) => p.join(",")).join(" ") }),
    svg("text", { x: xs[xs.length - 1] - 6, y: labelY, class: "end" }, version.names.join(", ")));
}
