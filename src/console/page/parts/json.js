// JSON as text: members in order of arrival, folded below the third level, refused paths marked.
import { html } from "../vendor/htm-preact-3.1.1.js";

const FOLD = 3;

export function Json({ value, errors = [] }) {
  const marks = new Map();
  for (const { path, message } of errors) marks.set(path, (marks.get(path) ?? []).concat(message));
  const known = new Set();
  const body = node(value, "", 0, marks, known, null);
  const rest = [...marks].filter(([path]) => !known.has(path));
  return html`<div class="json">${body}${rest.map(
    ([path, messages]) => html`<div class="marked"><span class="key">${path || "(the event)"}</span> <span class="mark">${messages.join("; ")}</span></div>`,
  )}</div>`;
}

const label = (key) => (key === null ? "" : html`<span class="key">${key}: </span>`);

function node(value, path, depth, marks, known, key) {
  const errors = marks.get(path);
  if (errors) known.add(path);
  const mark = errors ? html` <span class="mark">← ${errors.join("; ")}</span>` : null;
  let body;
  if (value !== null && typeof value === "object") {
    const list = Array.isArray(value);
    const entries = Object.entries(value);
    const inner = entries.map(([name, member]) =>
      node(member, path ? `${path}.${name}` : name, depth + 1, marks, known, list ? Number(name) : name));
    const holds = [...marks.keys()].some((marked) => marked === path || marked.startsWith(path ? `${path}.` : ""));
    const sum = list ? `[${entries.length}]` : `{${entries.length}}`;
    body = html`<details open=${depth < FOLD || holds}><summary>${label(key)}${sum}${mark}</summary><div class="members">${inner}</div></details>`;
  } else {
    const kind = typeof value === "string" ? "string" : "other";
    body = html`<div>${label(key)}<span class=${kind}>${JSON.stringify(value)}</span>${mark}</div>`;
  }
  return errors ? html`<div class="marked">${body}</div>` : body;
}
