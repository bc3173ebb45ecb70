// JSON as text: members in order of arrival, folded below the third level, refused paths marked with their message. A
// refused path that is not there is shown in its place as absent.
import { html } from "../vendor/htm-preact-3.1.1.js";
import { isExact } from "../exact.js";

const FOLD = 3;

const isNode = (value) => value !== null && typeof value === "object" && !isExact(value);

// Marks by the path of the node that shows them: those of the node itself, and those of members that are absent.
function marksOf(value, errors) {
  const own = new Map();
  const absent = new Map();
  const add = (map, path, mark) => map.set(path, (map.get(path) ?? []).concat([mark]));
  for (const { path, message } of errors) {
    let here = value;
    let at = "";
    let rest = path === "" ? [] : path.split(".");
    while (rest.length && isNode(here)) {
      // A member's name may hold dots: the longest name that is there wins.
      let taken = rest.length;
      while (taken && !Object.hasOwn(here, rest.slice(0, taken).join("."))) taken -= 1;
      if (!taken) break;
      const name = rest.slice(0, taken).join(".");
      here = here[name];
      at = at ? `${at}.${name}` : name;
      rest = rest.slice(taken);
    }
    if (rest.length && isNode(here)) add(absent, at, { name: rest.join("."), message });
    else add(own, at, rest.length ? `${path}: ${message}` : message);
  }
  return { own, absent };
}

export function Json({ value, errors = [] }) {
  const marks = marksOf(value, errors);
  return html`<div class="json">${node(value, "", 0, marks, null)}</div>`;
}

const label = (key) => (key === null ? "" : html`<span class="key">${key}: </span>`);
const mark = (messages) => html` <span class="mark">← ${messages.join("; ")}</span>`;

function node(value, path, depth, marks, key) {
  const errors = marks.own.get(path);
  const shown = errors ? mark(errors) : null;
  let body;
  if (isNode(value)) {
    const list = Array.isArray(value);
    const entries = Object.entries(value);
    const inner = entries.map(([name, member]) =>
      node(member, path ? `${path}.${name}` : name, depth + 1, marks, list ? Number(name) : name));
    const absent = marks.absent.get(path) ?? [];
    const below = [...marks.own.keys(), ...marks.absent.keys()].some((marked) => marked === path || marked.startsWith(path ? `${path}.` : ""));
    const sum = list ? `[${entries.length}]` : `{${entries.length}}`;
    body = html`<details open=${depth < FOLD || below}><summary>${label(key)}${sum}${shown}</summary><div class="members">${inner}${absent.map(
      ({ name, message }) => html`<div class="marked"><span class="key">${name}: </span><span class="second">absent</span>${mark([message])}</div>`,
    )}</div></details>`;
  } else {
    const kind = typeof value === "string" ? "string" : "other";
    const text = isExact(value) ? value.text : value === undefined ? "" : JSON.stringify(value);
    body = html`<div>${label(key)}<span class=${kind}>${text}</span>${shown}</div>`;
  }
  return errors ? html`<div class="marked">${body}</div>` : body;
}
