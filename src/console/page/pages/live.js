// Events as they are validated, the newest first. An event that is open holds the list still.
import { html, useEffect, useState } from "../vendor/htm-preact-3.1.1.js";
import { clearSamples, connection, pause, samples, setFilter } from "../feed.js";
import { bytes, clock, number } from "../format.js";
import { Json } from "../parts/json.js";
import { Choice, Copy, Notice, Source, targetRow } from "../parts/parts.js";
import { useSignal } from "../store.js";
import { sources, types } from "../catalog.js";

function Sample({ one }) {
  return html`<div class="letter">
    <div class="row">${one.eventId ? html`<span><code>${one.eventId}</code> <${Copy} text=${one.eventId} /></span><a href=${`#/event?id=${encodeURIComponent(one.eventId)}`}>Its path through the system</a>` : null}
      ${one.outcome === "refused" && one.eventId ? html`<a href=${`#/dead-letters?search=${encodeURIComponent(one.eventId)}`}>Its dead letter</a>` : null}<span class="second">${bytes(one.bytes)}</span></div>
    ${one.event === null || one.event === undefined
      ? html`<p class="second">The event is no JSON, or larger than a sample carries (8 KiB).</p><ul class="errors">${(one.errors ?? []).map((error) => html`<li><code>${error.path || "the event"}</code> <span class="mark">${error.message}</span></li>`)}</ul>`
      : html`<${Json} value=${one.event} errors=${one.errors ?? []} />`}</div>`;
}

function Row({ one, open, onOpen }) {
  const [first, ...more] = one.errors ?? [];
  return html`<tr key=${one.serial} ...${targetRow(onOpen)} aria-expanded=${open} aria-selected=${open}>
      <td><time datetime=${one.at} title=${`${one.at} (UTC)`}>${clock(one.at)}</time></td><td>${one.source ? html`<${Source} name=${one.source} />` : html`<span class="second">unknown</span>`}</td><td>${one.eventType ?? html`<span class="second">–</span>`}</td>
      <td class="wrap mono">${one.eventId ?? html`<span class="second">no eventId</span>`}</td>
      <td class="wrap">${one.outcome === "refused" ? html`<span class="amber">refused</span>${first ? html` <span class="second">${first.path || "the event"}: ${first.message}${more.length ? ` and ${more.length} more` : ""}</span>` : null}` : "accepted"}</td></tr>
    ${open ? html`<tr key=${`${one.serial} open`}><td colspan="5"><${Sample} one=${one} /></td></tr>` : null}`;
}

export function Live({ params, setParams, keys }) {
  const { list, missed, held } = useSignal(samples);
  const link = useSignal(connection);
  const [stopped, setStopped] = useState(false);
  const [open, setOpen] = useState(null);
  const search = params.search ?? "";
  useEffect(() => setFilter({ source: params.source, eventType: params.eventType, outcome: params.outcome }), [params.source, params.eventType, params.outcome]);
  useEffect(() => pause(stopped || open !== null), [stopped, open]);
  useEffect(() => () => pause(false), []);
  const still = stopped || open !== null;
  const toggle = () => {
    setOpen(null);
    setStopped(!still);
  };
  keys.current = { " ": toggle };
  const text = search.toLowerCase();
  const shown = text ? list.filter((one) => JSON.stringify(one).toLowerCase().includes(text)) : list;
  const choose = (name) => (event) => setParams({ ...params, [name]: event.target.value });
  const names = useSignal(sources);
  const kinds = useSignal(types);
  const away = link.state === "away";
  return html`
    <div class="row" role="search">
      <button onClick=${toggle} aria-pressed=${still} class="steady">${still ? "Go on" : "Pause"}</button>
      <${Choice} label="Source" value=${params.source} values=${names} onChange=${choose("source")} />
      <${Choice} label="Type" value=${params.eventType} values=${kinds} onChange=${choose("eventType")} />
      <${Choice} label="Outcome" value=${params.outcome} values=${["accepted", "refused"]} onChange=${choose("outcome")} />
      <input class="grow" type="search" data-search placeholder="Search in what is shown" aria-label="Search in what is shown" value=${search} onInput=${choose("search")} />
      <button onClick=${() => { setOpen(null); clearSamples(); }}>Clear</button>
    </div>
    <p class="second" role="status">${number(shown.length)} shown, 500 kept. Up to 20 samples a second${missed ? `; ${number(missed)} more were left out for this page` : ""}${still ? `. The list is still, ${number(held)} wait` : ""}.</p>
    ${shown.length
      ? html`<div class=${`scroll tall ${away ? "stale" : ""}`}><table class="live"><thead><tr><th>Validated</th><th>Source</th><th>Type</th><th>Event</th><th>Outcome</th></tr></thead><tbody>
        ${shown.map((one) => html`<${Row} one=${one} key=${one.serial} open=${open === one.serial} onOpen=${() => setOpen(open === one.serial ? null : one.serial)} />`)}</tbody></table></div>`
      : html`<${Notice} title=${away ? "Not connected" : text && list.length ? "No event on this page matches" : "No event yet"}><p>${away ? `The feed is away: ${link.why}. It comes back by itself.` : text && list.length ? "The search looks at the events that are kept here." : "Events show here as the gateway validates them; those from before this page was opened do not. The filters hold for what comes."}</p><//>`}`;
}
