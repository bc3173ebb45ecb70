// Small views that several pages share.
import { html, useEffect, useRef, useState } from "../vendor/htm-preact-3.1.1.js";
import { setAdminToken, setToken, token } from "../api.js";
import { hue, sources } from "../catalog.js";
import { ago, dateTime, utc } from "../format.js";
import { useSignal } from "../store.js";

export function Source({ name }) {
  useSignal(sources);
  return html`<span class="source"><span class="hue" style=${{ background: `var(${hue(name)})` }}></span>${name}</span>`;
}

// A choice of one value or all; a value that is not offered, as one from an old link, stays visible.
export function Choice({ label, value = "", values, onChange }) {
  const all = value && !values.includes(value) ? [value, ...values] : values;
  return html`<label>${label} <select value=${value} onChange=${onChange}><option value="">all</option>${all.map((name) => html`<option value=${name} selected=${name === value}>${name}</option>`)}</select></label>`;
}

// Shown only if an answer takes a while, so that nothing flickers.
export function Loading() {
  const [late, setLate] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setLate(true), 600);
    return () => clearTimeout(timer);
  }, []);
  return late ? html`<p class="second" role="status">The reporter is asked…</p>` : null;
}

export const Time = ({ at, absolute }) =>
  at ? html`<time datetime=${utc(at)} title=${`${utc(at)} (UTC)`}>${absolute ? dateTime(at) : ago(at)}</time>` : "–";

export function Spark({ values }) {
  const most = Math.max(1e-9, ...values);
  const step = values.length > 1 ? 100 / (values.length - 1) : 0;
  const points = values.map((value, at) => `${at ? "L" : "M"}${(at * step).toFixed(2)} ${(19 - (value / most) * 18).toFixed(2)}`);
  return html`<svg class="spark" viewBox="0 0 100 20" preserveAspectRatio="none" aria-hidden="true"><path d=${points.join("")} /></svg>`;
}

export const Notice = ({ title, children }) => html`<div class="notice"><h2>${title}</h2>${children}</div>`;

// Says that what is shown is not up to date, and since when.
export function Away({ error, since }) {
  if (!error) return null;
  if (error.status === 401) return html`<${AskToken} />`;
  return html`<p class="banner amber" role="status">Not up to date: ${error.message}. ${since ? html`Since <${Time} at=${since} />.` : ""} The last figures are shown; the page comes back by itself.</p>`;
}

export function AskToken() {
  const [value, setValue] = useState("");
  const [wrong] = useState(Boolean(token.get()));
  const submit = (event) => {
    event.preventDefault();
    setToken(value.trim());
  };
  return html`<form class="notice row" onSubmit=${submit}>
    <div class="grow"><h2>This reporter asks for a token</h2><p>${wrong ? html`<span class="amber">The token that was given is not the one. </span>` : null}The value of <code>ESS_REPORTER_TOKEN</code>. It is kept for this tab alone.</p></div>
    <label class="row">Token <input type="password" autocomplete="off" name="token" value=${value} onInput=${(event) => setValue(event.target.value)} /></label>
    <button type="submit" class="main">Use</button>
  </form>`;
}

// Asks for the admin token in the place where an action needs it.
export function AskAdminToken({ why, wrong, onDone }) {
  const [value, setValue] = useState("");
  const submit = (event) => {
    event.preventDefault();
    setAdminToken(value.trim());
    onDone();
  };
  return html`<form class="row" onSubmit=${submit}><span>${wrong ? html`<span class="amber">That is not the admin token. </span>` : null}${why ?? ""}</span>
    <label><code>ESS_ADMIN_TOKEN</code> <input type="password" autocomplete="off" name="admin" value=${value} onInput=${(event) => setValue(event.target.value)} /></label><button type="submit" class="main">Use</button></form>`;
}

export function Copy({ text, label = "Copy" }) {
  const [done, setDone] = useState(false);
  const copy = async (event) => {
    event.stopPropagation();
    try {
      await navigator.clipboard.writeText(text);
      setDone(true);
      setTimeout(() => setDone(false), 1500);
    } catch {
      setDone(false);
    }
  };
  return html`<button class="link" onClick=${copy} title=${text}>${done ? "Copied" : label}</button>`;
}

// Opens by click or Enter; the row is the target.
export const targetRow = (open) => ({
  class: "target",
  tabindex: 0,
  onClick: open,
  onKeyDown: (event) => event.key === "Enter" && open(),
});

export function Dialog({ title, open, onClose, children }) {
  const ref = useRef();
  useEffect(() => {
    if (open && !ref.current.open) ref.current.showModal();
    if (!open && ref.current.open) ref.current.close();
  }, [open]);
  return html`<dialog ref=${ref} onClose=${onClose} aria-label=${title}><h2>${title}</h2>${open ? children : null}</dialog>`;
}
