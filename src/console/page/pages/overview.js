// The path of events with live figures, what is not well now, and the processes.
import { html } from "../vendor/htm-preact-3.1.1.js";
import { connection, fleet, flatten, flow, ledger, notices } from "../feed.js";
import { bytes, clock, duration, number, rate, utc } from "../format.js";
import { Away, Copy, Loading, Notice, Source, Spark } from "../parts/parts.js";
import { problems, stateOf } from "../state.js";
import { useSignal } from "../store.js";

const RATES = ["received", "accepted", "refused", "logged", "stored", "duplicates"];

function Figure({ label, value, unit, note, level, spark }) {
  return html`<div class="figure"><div class="label">${label}</div><div class=${`value ${level ?? ""}`}>${value}${unit ? html` <small>${unit}</small>` : null}</div>
    ${spark ? html`<${Spark} values=${spark} />` : null}<div class="note">${note}</div></div>`;
}

// A line whose weight is the rate; grey where nothing flows, amber where events come in and none go on.
function Line({ into, outof, most }) {
  const weight = into > 0 && most > 0 ? 1 + 3 * Math.sqrt(into / most) : 1;
  const stands = into > 0 && outof === 0;
  const stroke = stands ? "var(--amber)" : into > 0 ? "var(--accent)" : "var(--line-strong)";
  return html`<svg class="flow-line" viewBox="0 0 40 16" preserveAspectRatio="none" aria-hidden="true"><path d="M0 8H40" stroke=${stroke} stroke-width=${weight} vector-effect="non-scaling-stroke" fill="none" /></svg>`;
}

const Rate = ({ value }) => html`<td class="number">${rate(value)}<span class="second">/s</span></td>`;

function Path({ sources, totals }) {
  const most = Math.max(0, ...sources.map((one) => one.received ?? 0));
  return html`<div class="scroll"><table class="path">
    <caption class="visually-hidden">The path of events of each source: events a second, and events that wait in the log</caption>
    <thead><tr><th>Source</th><th class="number">Received</th><th></th><th class="number">Accepted</th><th></th><th class="number">In the log</th><th></th><th class="number">Stored</th><th class="number">Stored in all</th><th class="number">Duplicates</th><th class="number">Refused</th><th class="number">Missing</th></tr></thead>
    <tbody>${sources.map((one) => {
      const of = totals.get(one.source);
      const link = `#/live?outcome=refused${one.source === "unknown" ? "" : `&source=${encodeURIComponent(one.source)}`}`;
      return html`<tr key=${one.source}>
      <td><${Source} name=${one.source} /></td>
      <${Rate} value=${one.received} /><td><${Line} into=${one.received} outof=${one.accepted} most=${most} /></td>
      <${Rate} value=${one.accepted} /><td><${Line} into=${one.accepted} outof=${one.logged} most=${most} /></td>
      <td class="number">${number(one.inFlight)}</td><td><${Line} into=${one.inFlight > 0 || one.stored > 0 ? Math.max(one.logged, 0.001) : 0} outof=${one.stored + one.duplicates} most=${most} /></td>
      <${Rate} value=${one.stored} />
      <td class="number">${number(of?.stored)}</td>
      <td class="number" title=${`${number(of?.duplicates)} in all`}>${rate(one.duplicates)}<span class="second">/s</span></td>
      <td class="number" title=${`${number(of?.rejected)} in all`}>${one.refused > 0 ? html`<a href=${link}>${rate(one.refused)}/s ▸</a>` : html`0<span class="second">/s</span>`}</td>
      <td class=${`number ${one.missing > 0 ? "red" : ""}`}>${number(one.missing)}</td>
    </tr>`;
    })}</tbody></table></div>`;
}

function Processes({ instances }) {
  return html`<div class="scroll"><table><thead><tr><th>Process</th><th>State</th><th class="number">Cores</th><th class="number">Memory</th><th class="number">Actors</th><th class="number">Restarts</th></tr></thead>
    <tbody>${instances.map((one) => {
      const actors = flatten(one.actors).filter((node) => !node.children?.length);
      const state = stateOf(one);
      return html`<tr key=${`${one.instance} ${one.service}`}><td><a href=${`#/actors?instance=${encodeURIComponent(one.instance)}&service=${encodeURIComponent(one.service)}`}>${one.service}</a> <span class="second mono">${one.instance}</span></td>
        <td class=${`wrap ${state.level}`}>${state.text}</td>
        <td class="number">${one.cores === undefined ? "–" : one.cores.toFixed(2)}</td><td class="number">${bytes(one.memoryBytes)}</td>
        <td class="number">${actors.length}</td><td class="number">${actors.reduce((sum, node) => sum + node.restarts, 0)}</td></tr>`;
    })}</tbody></table></div>`;
}

// What is not well stands above what has changed.
function Now({ found, changes }) {
  const row = (one, at) => html`<li key=${one.key ?? `${at.getTime()} ${one.text}`}><time datetime=${utc(at)} title=${`since ${utc(at)} (UTC)`}>${clock(at)}</time>
    ${one.link ? html`<a class=${one.level ?? ""} href=${one.link}>${one.text} ▸</a>` : html`<span class=${one.level ?? ""}>${one.text}</span>`}</li>`;
  if (!found.length && !changes.length) {
    return html`<${Notice} title="Nothing to look at"><p>What is not well stands here, with the time since when; then starts, restarts and ends of processes since this page was opened.</p><//>`;
  }
  return html`<ul class="now">${found.map((one) => row(one, one.since))}${changes.map((one) => row(one, one.at))}</ul>`;
}

function Empty({ instances }) {
  const port = instances.find((one) => one.service.startsWith("gateway"))?.port ?? 3000;
  const webhook = `${location.protocol}//${location.hostname}:${port}/webhook`;
  const command = `ess publisher --target ${webhook} --batch 1 --rate 10 --duration 10s`;
  return html`<${Notice} title="No events yet"><p>Point a sender at the gateway's <code>/webhook</code>, or send some invented ones; they show here within a second. <${Copy} text=${command} label="Copy the command" /></p><pre>${command}</pre><//>`;
}

export function Overview() {
  const live = useSignal(flow);
  const link = useSignal(connection);
  const processes = useSignal(fleet);
  const changes = useSignal(notices);
  const book = useSignal(ledger);
  const totals = new Map((book.value?.sources ?? []).map((one) => [one.source, one]));
  const sum = (field) => (book.value ? book.value.sources.reduce((all, one) => all + one[field], 0) : null);
  const perSecond = (entry, field) => entry.sources.reduce((all, one) => all + (one[field] ?? 0), 0);
  const received = live.history.map((entry) => perSecond(entry, "received"));
  const away = link.state === "away" ? "stale" : "";
  const missing = sum("missing");
  const stored = sum("stored");
  const found = problems({ connection: link, flow: live, fleet: processes, ledger: book });
  const none = Object.fromEntries(RATES.map((field) => [field, 0]));
  const shown = live.sources.concat(
    [...totals.values()].filter((one) => !live.sources.some((known) => known.source === one.source)).map((one) => ({ source: one.source, ...none, inFlight: one.inFlight, missing: one.missing })));
  const empty = stored === 0 && !received.some((value) => value > 0);
  return html`
    <${Away} error=${book.error} since=${book.since} />
    ${book.value ? null : html`<${Loading} />`}
    <section class=${book.error ? "stale" : away}>
      <h2 class="visually-hidden">Figures</h2>
      <div class="figures">
        <${Figure} label="Missing" value=${number(missing)} level=${missing > 0 ? "red" : ""} note=${missing > 0 ? "published, neither in the log nor stored" : missing === 0 ? "every published event is accounted for" : "not known yet"} />
        <${Figure} label="Stored" value=${number(stored)} unit="events" note=${`${number(sum("duplicates"))} duplicates, ${number(sum("quarantined"))} set aside`} />
        <${Figure} label="Received" value=${live.at ? rate(live.sources.reduce((all, one) => all + (one.received ?? 0), 0)) : "–"} unit="/s" spark=${received} note="mean of 5 s; line: the last 5 min" />
        <${Figure} label="Post to row, p50 / p99" value=${live.postToRow ? duration(live.postToRow.p50) : "–"} unit=${live.postToRow ? `/ ${duration(live.postToRow.p99)}` : ""} spark=${live.history.map((entry) => entry.postToRow?.p50 ?? 0)} note="accepted until committed, over 10 s" />
        <${Figure} label="In the log" value=${number(live.at ? live.sources.reduce((all, one) => all + (one.inFlight ?? 0), 0) : sum("inFlight"))} unit="events" note="accepted, not stored yet" />
      </div>
    </section>
    <section class=${away}><h2>Path of events</h2>
      ${shown.length ? html`<${Path} sources=${shown} totals=${totals} />` : null}
      ${empty && book.value ? html`<${Empty} instances=${processes.instances} />` : null}
    </section>
    <div class="columns">
      <section><h2>Now</h2><${Now} found=${found} changes=${changes} /></section>
      <section class=${processes.error ? "stale" : ""}><h2>Processes</h2>
        ${processes.instances.length ? html`<${Processes} instances=${processes.instances} />` : processes.at || processes.error ? html`<${Notice} title="No process is heard of"><p>${processes.error ? processes.error.message : "Each process of the system tells of itself once a second."}</p><//>` : html`<${Loading} />`}
      </section>
    </div>`;
}
