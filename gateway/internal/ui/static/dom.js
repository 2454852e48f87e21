// What builds the page. Text only ever becomes text: nothing here parses markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attrs, children) {
  for (const [name, value] of Object.entries(attrs || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat()) {
    if (child === null || child === undefined) continue;
    node.append(child instanceof Node ? child : String(child));
  }
  return node;
}

// el makes an HTML element; a function among attrs listens to the event of its name.
export function el(tag, attrs, ...children) {
  return fill(document.createElement(tag), attrs, children);
}

// svg makes an SVG element.
export function svg(tag, attrs, ...children) {
  return fill(document.createElementNS(SVG, tag), attrs, children);
}

export function byId(id) {
  return document.getElementById(id);
}

// text sets the text of an element only where it changes, so that live regions speak of changes alone.
export function text(node, value) {
  if (node.textContent !== value) node.textContent = value;
}

export function count(n) {
  return Number(n).toLocaleString("en-US");
}

export function bytes(n) {
  let value = Number(n);
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (value < 1024) return (unit === "B" ? value : value.toFixed(1)) + " " + unit;
    value /= 1024;
  }
  return value.toFixed(1) + " TiB";
}

// age writes seconds as people do.
export function age(seconds) {
  if (seconds < 1) return "< 1 s";
  if (seconds < 100) return Math.round(seconds) + " s";
  if (seconds < 6000) return Math.round(seconds / 60) + " min";
  if (seconds < 360000) return Math.round(seconds / 3600) + " h";
  return Math.round(seconds / 86400) + " d";
}

export function percent(share) {
  return (100 * share).toFixed(1) + " %";
}
