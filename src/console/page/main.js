// The frame of the console: the state in words, the pages, keys. Each view is a URL: the page and its parameters
// follow the number sign.
import { html, render, useEffect, useRef, useState } from "./vendor/htm-preact-3.1.1.js";
import { denied, setToken, token } from "./api.js";
import { loadCatalog } from "./catalog.js";
import { connection, fleet, flow, ledger, run, watchFleet, watchLedger } from "./feed.js";
import { clock, zone } from "./format.js";
import { Actors } from "./pages/actors.js";
import { DeadLetters } from "./pages/dead_letters.js";
import { Event } from "./pages/event.js";
import { Live } from "./pages/live.js";
import { Overview } from "./pages/overview.js";
import { Reports } from "./pages/reports.js";
import { AskToken, Dialog } from "./parts/parts.js";
import { headline, problems } from "./state.js";
import { useSignal } from "./store.js";
import { nextTheme, theme } from "./theme.js";

const PAGES = [
  { path: "", key: "o", title: "Overview", view: Overview },
  { path: "reports", key: "r", title: "Reports", view: Reports },
  { path: "live", key: "l", title: "Live", view: Live },
  { path: "event", key: "e", title: "Event", view: Event },
  { path: "dead-letters", key: "d", title: "Dead letters", view: DeadLetters },
  { path: "actors", key: "a", title: "Actors", view: Actors },
];

function here() {
  const [path, search = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const page = PAGES.find((one) => one.path === path) ?? PAGES[0];
  return { page, params: Object.fromEntries(new URLSearchParams(search)) };
}

function go(path, params = {}, replace = false) {
  const pairs = Object.entries(params).filter(([, value]) => value !== undefined && value !== "");
  const search = new URLSearchParams(pairs).toString();
  const hash = `#/${path}${search ? `?${search}` : ""}`;
  if (replace) history.replaceState(null, "", hash);
  else location.hash = hash;
  window.dispatchEvent(new HashChangeEvent("hashchange"));
}

function State() {
  const link = useSignal(connection);
  const found = problems({ connection: link, flow: useSignal(flow), fleet: useSignal(fleet), ledger: useSignal(ledger) });
  const state = headline(found, link);
  const since = state.since ? ` (since ${clock(state.since)})` : "";
  const text = html`<span class=${state.level === "well" ? "" : state.level}>${state.text}${since}</span>`;
  return html`<span class=${`state ${state.level}`} role="status" aria-live="polite">${state.link ? html`<a href=${state.link}>${text}</a>` : text}</span>`;
}

// Moves the selection in the first table of the page.
function step(by) {
  const rows = [...document.querySelectorAll("tr.target")];
  const at = rows.indexOf(document.activeElement);
  rows[Math.max(0, Math.min(rows.length - 1, at + by))]?.focus();
}

function useKeys(setHelp, page) {
  const keys = useRef({});
  keys.current = {};
  useEffect(() => {
    let after = 0;
    const onKey = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "Escape") event.target.closest("input, select")?.blur();
      if (event.target.closest("input, select, textarea, dialog")) return;
      const going = Date.now() - after < 1200;
      after = 0;
      const target = going && PAGES.find((one) => one.key === event.key);
      if (target) go(target.path);
      else if (event.key === "g") after = Date.now();
      else if (event.key === "/") document.querySelector("[data-search]")?.focus();
      else if (event.key === "?") setHelp(true);
      else if (event.key === "j") step(1);
      else if (event.key === "k") step(-1);
      else if (keys.current[event.key] && !event.target.closest("button, a, summary")) keys.current[event.key]();
      else return;
      event.preventDefault();
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, [page]);
  return keys;
}

function Console() {
  const [place, setPlace] = useState(here());
  const [help, setHelp] = useState(false);
  const [asking, setAsking] = useState(false);
  const known = useSignal(token);
  const refused = useSignal(denied);
  const shade = useSignal(theme);
  const keys = useKeys(setHelp, place.page);
  useEffect(() => {
    const change = () => setPlace(here());
    window.addEventListener("hashchange", change);
    return () => window.removeEventListener("hashchange", change);
  }, []);
  useEffect(() => {
    document.title = `${place.page.title} · ESS`;
  }, [place.page]);
  const View = place.page.view;
  return html`
    <header class="bar">
      <span class="name">ESS</span><${State} />
      <nav aria-label="Pages">${PAGES.map((one) => html`<a href=${`#/${one.path}`} aria-current=${one === place.page ? "page" : undefined}>${one.title}</a>`)}</nav>
      <span class="tools"><span class="zone" title="Times are shown in this zone; the exact time in UTC shows on hover">${zone()}</span>
        <button class="link" onClick=${nextTheme} title="Light, dark, or as the system has it">${shade === "system" ? "◐" : shade === "light" ? "○" : "●"}<span class="visually-hidden"> theme: ${shade}</span></button>
        <button class="link" onClick=${() => (known ? setToken("") : setAsking(!asking))}>${known ? "forget token" : "token"}</button>
        <button class="link" onClick=${() => setHelp(true)} aria-label="Keys">?</button></span>
    </header>
    <main>
      ${refused || (asking && !known) ? html`<${AskToken} />` : null}
      ${refused ? null : html`<${View} key=${place.page.path} params=${place.params} setParams=${(params) => go(place.page.path, params, true)} keys=${keys} />`}
    </main>
    <${Dialog} title="Keys" open=${help} onClose=${() => setHelp(false)}>
      <dl class="keys">${PAGES.map((one) => html`<dt><kbd>g</kbd> <kbd>${one.key}</kbd></dt><dd>${one.title}</dd>`)}
        <dt><kbd>/</kbd></dt><dd>Search; <kbd>Esc</kbd> leaves it</dd><dt><kbd>space</kbd></dt><dd>Pause the live list, and go on</dd><dt><kbd>j</kbd> <kbd>k</kbd></dt><dd>Next and previous row; Enter opens it</dd><dt><kbd>?</kbd></dt><dd>These keys</dd></dl>
      <p><button onClick=${() => setHelp(false)}>Close</button></p>
    <//>`;
}

render(html`<${Console} />`, document.getElementById("console"));
run();
watchFleet();
watchLedger();
loadCatalog();
token.subscribe(loadCatalog);
