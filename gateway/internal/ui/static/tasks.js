// What runs besides requests.

import { age, byId, count, el } from "./dom.js";

const KINDS = { hints: "hints for", compare: "comparison with", refill: "refill from", layout: "layout change", unknown: "unknown" };

// showTasks lists what runs or keeps hints; comparisons that wait for their turn are only counted.
export function showTasks(tasks) {
  const idle = tasks.filter((t) => t.kind === "compare" && t.state !== "running");
  const busy = tasks.filter((t) => !idle.includes(t));
  const rows = busy.map((t) => {
    const done = Number(t.done), total = Number(t.total);
    const what = (KINDS[t.kind] || t.kind) + (t.peer ? " " + t.peer : "");
    const progress = t.kind === "hints" ? count(total) + " left"
      : total > 0 ? [el("progress", { max: total, value: done, "aria-label": what }), " " + count(done) + " of " + count(total)] : "–";
    return el("tr", {}, el("th", { scope: "row" }, t.node || "cluster"), el("td", {}, what),
      el("td", {}, el("span", { class: "state " + (t.state === "running" ? "ok" : "warn") }, t.state)),
      el("td", {}, progress), el("td", { class: "n" }, t.age_seconds > 0 ? age(t.age_seconds) : "–"), el("td", {}, t.detail));
  });
  const head = ["Node", "What", "State", "Progress", "Age", "Detail"];
  const table = el("table", {}, el("thead", {}, el("tr", {}, head.map((h) => el("th", { scope: "col", class: h === "Age" ? "n" : null }, h)))),
    el("tbody", {}, rows));
  const rest = el("p", {}, (busy.length ? "" : "Nothing runs. ") + count(idle.length) + " comparisons between owners wait for their turn.");
  byId("tasks").replaceChildren(...(busy.length ? [table, rest] : [rest]));
}
