// The page as a whole: which view is shown, what is asked each second, and the token.

import * as api from "./api.js";
import { byId, text } from "./dom.js";
import * as keys from "./keys.js";
import { showGossip, showNodes, showStatus } from "./overview.js";
import { showRing } from "./ring.js";
import { showTasks } from "./tasks.js";
import { showHot, showStats } from "./traffic.js";

const PERIOD = 1000; // ms between answer and question
const VIEWS = ["overview", "keys", "work"];

const seen = { tasks: [], nodes: [], layouts: [], hash: "" };

// every asks again and again, each time a second after the answer. Each question goes its own way, so that one that takes
// long holds none of the others up. A page that nobody sees asks nothing.
function every(ask) {
  const turn = async () => {
    if (!document.hidden) {
      try {
        await ask();
        faults.delete(ask);
      } catch (err) {
        faults.set(ask, err);
      }
      showFaults();
    }
    setTimeout(turn, PERIOD);
  };
  turn();
}

const faults = new Map(); // of the questions whose last answer was none

// showFaults tells of the first question that fails. What was last known stays on the page.
function showFaults() {
  const [err] = faults.values();
  byId("fault").hidden = !err;
  byId("link").className = err ? "bad" : "ok";
  text(byId("link"), err ? "not live" : "live");
  if (!err) return;
  if (err.status === 401 || err.status === 403) byId("sign").hidden = false;
  text(byId("fault"), faultText(err));
  if (err.status === 401) askToken(false);
}

function faultText(err) {
  if (err.status === 401) return api.token() ? "The gateway does not accept this token." : "The gateway asks for a token.";
  if (err.status === 403) return "This token may not look at the cluster: it needs admin. Keys that it may read can be looked up.";
  return err.status ? err.message : "The gateway does not answer. What is shown is old.";
}

let asked = false; // once by itself; then by the button

function askToken(again) {
  if (asked && !again) return;
  asked = true;
  text(byId("token-why"), "This gateway has access rules. The cluster is shown to tokens with admin, keys to tokens that may read them.");
  byId("token").value = "";
  byId("token-dialog").showModal();
}

function startToken() {
  byId("sign").addEventListener("click", () => askToken(true));
  byId("sign").hidden = api.token() === "";
  byId("token-form").addEventListener("submit", (e) => {
    const value = byId("token").value.trim();
    if (e.submitter && e.submitter.value === "forget") api.setToken("");
    else if (value) api.setToken(value);
    byId("token").value = "";
  });
}

function showView() {
  if (location.hash === "#main") return; // the link past the header
  const name = VIEWS.find((v) => location.hash.startsWith("#" + v)) || "overview";
  for (const v of VIEWS) byId("view-" + v).hidden = v !== name;
  for (const a of document.querySelectorAll("nav a")) {
    if (a.dataset.view === name) a.setAttribute("aria-current", "page");
    else a.removeAttribute("aria-current");
  }
  document.title = name[0].toUpperCase() + name.slice(1) + " · Dotring";
  if (name === "keys") {
    keys.open(location.hash);
    if (location.hash === "#keys") focusKey();
  }
}

function focusKey() {
  byId("key").focus();
  byId("key").select();
}

// onKey takes single keys where nobody types.
function onKey(e) {
  if (e.ctrlKey || e.metaKey || e.altKey || e.target.closest("input, textarea, dialog")) return;
  const view = VIEWS[Number(e.key) - 1];
  if (view) location.hash = "#" + view;
  if (e.key === "/") {
    e.preventDefault();
    if (byId("view-keys").hidden) location.hash = "#keys"; // which takes the focus there, once the view is shown
    else focusKey();
  }
}

async function askStatus() {
  const status = await api.status();
  showStatus(status);
  if (status.newest.hash !== seen.hash) {
    seen.layouts = (await api.layout()).layouts;
    seen.hash = status.newest.hash;
  }
}

async function askNodes() {
  seen.nodes = (await api.nodes()).nodes;
  keys.noteActors(seen.nodes);
  showNodes(seen.nodes, seen.tasks);
  showGossip(seen.nodes);
  showRing(seen.layouts, seen.nodes);
}

async function askTasks() {
  seen.tasks = (await api.tasks()).tasks;
  showTasks(seen.tasks);
}

async function askStats() {
  showStats(await api.stats());
}

async function askHotKeys() {
  showHot(await api.hotKeys());
}

window.addEventListener("hashchange", showView);
document.addEventListener("keydown", onKey);
startToken();
keys.start((fragment) => { location.hash = fragment; });
showView();
every(askStatus);
every(askNodes);
every(askTasks);
every(askStats);
every(askHotKeys);
