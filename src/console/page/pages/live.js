// Events as they are judged, newest first.
import { html, useEffect, useState } from "../vendor/htm-preact-3.1.1.js";
import { clearSamples, connection, pause, samples, setFilter } from "../feed.js";
import { clock, number, utc } from "../format.js";
import { Json } from "../parts/json.js";
import { Notice, Source, targetRow } from "../parts/parts.js";
import { useSignal } from "../store.js";
import { sources, types } from "../catalog.js";

export function Live({ params, setParams, keys }) {
  const { list, missed, held } = useSignal(samples);
  const link = useSignal(connection);
  const [stopped, setStopped] = useState(false);
  const [open, setOpen] = useState(null);
  const search = params.search ?? "";
  useEffect(() => setFilter({ source: params.source, eventType: params.eventType, outcome: params.outcome }), [params.source, params.eventType, params.outcome]);
  useEffect(() => () => pause(false), []);
  const toggle = () => {
    pause(!stopped);
    setStopped(!stopped);
  };
  keys.current = { " ": toggle };
  const text = search.toLowerCase();
  const shown = text ? list.filter((one) => JSON.stringify(one).toLowerCase().includes(text)) : list;
  const choose = (name) => (event) => setParams({ ...params, [name]: event.target.value });
  const names = useSignal(sources);
  const kinds = useSignal(types);
  return html`
    <div class="row" role="search">
      <button onClick=${toggle} aria-pressed=${stopped}>${stopped ? `Go on${held ? ` (${number(held)} new)` : ""}` : "Pause"}</button>
      <label>Source <select value=${params.source ?? ""} onChange=${choose("source")}><option value="">all</option>${names.map((name) => html`<option value=${name}>${name}</option>`)}</select></label>
      <label>Type <select value=${params.eventType ?? ""} onChange=${choose("eventType")}><option value="">all</option>${kinds.map((name) => html`<option value=${name}>${name}</option>`)}</select></label>
      <label>Outcome <select value=${params.outcome ?? ""} onChange=${choose("outcome")}><option value="">all</option><option value="accepted">accepted</option><option value="refused">refused</option></select></label>
      <input class="grow" type="search" data-search placeholder="Search in what is shown" aria-label="Search in what is shown" value=${search} onInput=${choose("search")} />
      <button onClick=${clearSamples}>Clear</button>
    </div>
    <p class="second">${number(shown.length)} shown, 500 kept. Up to 20 samples a second${missed ? `; ${number(missed)} more were left out for this page` : ""}.</p>
    ${shown.length
      ? html`<div class="scroll tall"><table><thead><tr><th>Judged</th><th>Source</th><th>Type</th><th>Event</th><th>Outcome</th></tr></thead><tbody>
        ${shown.map((one) => html`<tr key=${one.serial} ...${targetRow(() => setOpen(open === one.serial ? null : one.serial))} aria-selected=${open === one.serial}>
          <td title=${utc(one.at)}>${clock(one.at)}</td><td>${one.source ? html`<${Source} name=${one.source} />` : html`<span class="second">unknown</span>`}</td><td>${one.eventType ?? "–"}</td>
          <td class="wrap mono">${one.eventId ?? "–"}${open === one.serial ? html`<div onClick=${(event) => event.stopPropagation()}><${Json} value=${one.event} errors=${one.errors ?? []} />${one.eventId ? html`<a href=${`#/event?id=${encodeURIComponent(one.eventId)}`}>Its way through the system</a>` : null}</div>` : null}</td>
          <td class=${`wrap ${one.outcome === "refused" ? "red" : ""}`}>${one.outcome}${one.errors?.length ? html`<div class="second">${one.errors[0].path}: ${one.errors[0].message}${one.errors.length > 1 ? ` and ${one.errors.length - 1} more` : ""}</div>` : null}</td>
        </tr>`)}</tbody></table></div>`
      : html`<${Notice} title=${link.state === "connected" ? "No event yet" : "Not connected"}><p>${link.state === "connected" ? "Events show here as the gateway judges them; those before this page was opened do not. Filters hold for what comes." : `The feed is away: ${link.why}. It comes back by itself.`}</p><//>`}`;
}
