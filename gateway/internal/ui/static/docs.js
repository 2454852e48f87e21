// The explorer of the HTTP API: the OpenAPI document as a page, with a form to try each operation.

import { escapeKey, setToken, token } from "./api.js";
import { byId, el, text } from "./dom.js";

const METHODS = ["get", "put", "post", "delete"]; // of HEAD a browser shows nothing
const MAX_SHOWN = 64 << 10;
let doc;

// deref follows a reference within the document.
function deref(node) {
  while (node && node.$ref) node = node.$ref.slice(2).split("/").reduce((at, name) => at[name], doc);
  return node || {};
}

// typeOf says in few words what a schema takes.
function typeOf(schema) {
  const name = schema && schema.$ref ? schema.$ref.split("/").pop() + ": " : "";
  const s = deref(schema);
  return name + (s.enum ? s.enum.map(String).join(" | ") : [s.type || "any"].flat().join(" | ")) + (s.pattern ? " " + s.pattern : "");
}

// exampleOf returns the first example of a parameter or media type as text.
function exampleOf(node) {
  const first = node.example ?? deref(Object.values(node.examples || {})[0]).value;
  if (first === undefined) return "";
  return typeof first === "string" ? first : JSON.stringify(first, null, 2);
}

function table(caption, head, rows) {
  if (rows.length === 0) return null;
  return el("div", { class: "scroll" }, el("table", null, el("caption", null, caption),
    el("thead", null, el("tr", null, head.map((h) => el("th", { scope: "col" }, h)))), el("tbody", null, rows)));
}

function responses(op) {
  return Object.entries(op.responses).map(([status, ref]) => {
    const r = deref(ref);
    const bodies = Object.entries(r.content || {}).map(([kind, media]) =>
      el("details", null, el("summary", null, kind, " ", el("span", { class: "hint" }, typeOf(media.schema))), el("div", null, el("pre", null, exampleOf(media)))));
    return el("tr", null, el("th", { scope: "row" }, status), el("td", null, r.description, bodies),
      el("td", null, Object.keys(r.headers || {}).join(", ")), el("td", null, (r["x-problems"] || []).join(", ")));
  });
}

// form lets an operation be tried: it sends what is filled in, and shows the answer as text.
function form(path, method, op, params) {
  const fields = params.map((p) => [p, el("input", { name: p.name, "aria-label": p.name, autocomplete: "off", placeholder: exampleOf(p) })]);
  const content = Object.entries((deref(op.requestBody).content) || {})[0];
  const body = content && el("textarea", { rows: 5, "aria-label": "Body" });
  if (body) body.value = exampleOf(content[1]);
  const out = el("pre", { role: "status", "aria-live": "polite", hidden: true });
  async function submit(event) {
    event.preventDefault();
    out.hidden = false;
    text(out, "…");
    try {
      text(out, await send(path, method, fields, body && body.value, content && content[0]));
    } catch (fault) {
      text(out, String(fault.message || fault));
    }
  }
  const rows = fields.map(([p, input]) => el("tr", null, el("th", { scope: "row" }, p.name, p.required ? " *" : ""), el("td", null, p.in), el("td", null, typeOf(p.schema)),
    el("td", null, p.description || ""), el("td", null, input)));
  return el("form", { submit }, table("Parameters", ["Name", "In", "Type", "Meaning", "Try"], rows),
    body && el("p", null, "Body, ", content[0], body), el("button", { type: "submit" }, "Send " + method.toUpperCase()), out);
}

// send makes the request, and returns what came of it.
async function send(path, method, fields, body, kind) {
  const query = new URLSearchParams();
  const headers = {};
  for (const [p, input] of fields) {
    if (p.in === "path") {
      if (!input.value) throw new Error(p.name + " is needed.");
      path = path.replace("{" + p.name + "}", escapeKey(new TextEncoder().encode(input.value)));
    } else if (input.value && p.in === "query") query.set(p.name, input.value);
    else if (input.value) headers[p.name] = input.value;
  }
  if (token()) headers.Authorization = "Bearer " + token();
  if (body !== undefined && kind !== "*/*") headers["Content-Type"] = kind;
  const target = path + (query.size ? "?" + query : "");
  const answer = await fetch(target, { method: method.toUpperCase(), headers, body, cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(65000) });
  const shown = (await answer.text()).slice(0, MAX_SHOWN);
  const lines = Array.from(answer.headers, ([name, value]) => name + ": " + value);
  return [method.toUpperCase() + " " + target, "", "HTTP " + answer.status, ...lines, "", pretty(shown, answer.headers.get("Content-Type") || "")].join("\n");
}

function pretty(shown, kind) {
  try {
    return /json/.test(kind) ? JSON.stringify(JSON.parse(shown), null, 2) : shown;
  } catch {
    return shown; // cut off
  }
}

function operation(path, method, op, item) {
  const params = [...(item.parameters || []), ...(op.parameters || [])].map(deref);
  const box = el("details", { id: op.operationId }, el("summary", null, el("span", { class: "method" }, method.toUpperCase()), el("span", { class: "path" }, path), op.summary));
  // Made when it is opened: most never are.
  box.addEventListener("toggle", () => box.append(el("div", null, el("p", { class: "prose" }, op.description || ""), form(path, method, op, params),
    table("Answers", ["Status", "Meaning", "Headers", "Problems"], responses(op)))), { once: true });
  return box;
}

function show() {
  byId("about").append(el("p", { class: "prose" }, doc.info.description), el("p", null, "Version " + doc.info.version + ", as ", el("a", { href: "../openapi.yaml" }, "OpenAPI document"), "."));
  for (const tag of doc.tags) {
    byId("tags").append(el("a", { href: "#tag-" + tag.name }, tag.name));
    byId("operations").append(el("h2", { id: "tag-" + tag.name }, tag.name), el("p", { class: "hint" }, tag.description));
    for (const [path, item] of Object.entries(doc.paths)) {
      for (const method of METHODS) {
        const op = item[method];
        if (op && op.tags.includes(tag.name)) byId("operations").append(operation(path, method, op, item));
      }
    }
  }
  const linked = byId(location.hash.slice(1));
  if (linked) {
    linked.open = true;
    linked.scrollIntoView();
  }
}

byId("token").value = token();
byId("token").addEventListener("change", (event) => setToken(event.target.value));
try {
  const answer = await fetch("openapi.json", { credentials: "omit" });
  if (!answer.ok) throw new Error("the document: HTTP status " + answer.status);
  doc = await answer.json();
  show();
} catch (fault) {
  text(byId("fault"), String(fault.message || fault));
}
