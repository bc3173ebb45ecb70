// The path of events with live figures, the processes, and what has changed.
import { html } from "../vendor/htm-preact-3.1.1.js";
import { get } from "../api.js";
import { connection, fleet, flatten, flow, notices } from "../feed.js";
import { bytes, clock, duration, number, rate, utc } from "../format.js";
import { Away, Copy, Notice, Source, Spark } from "../parts/parts.js";
import { usePolling, useSignal } from "../store.js";

const FIELDS = ["received", "accepted", "refused", "logged", "stored", "duplicates"];

function Figure({ label, value, unit, note, level, spark }) {
  return html`<div class="figure"><div class="label">${label}</div><div class=${`value ${level ?? ""}`}>${value}${unit ? html` <small>${unit}</small>` : null}</div>${
    spark ? html`<${Spark} values=${spark} />` : html`<div class="note">${note}</div>`}</div>`;
}

// A line whose weight is the rate; grey where nothing flows, amber where events come in and none go on.
function Line({ into, outof, most }) {
  const weight = into > 0 && most > 0 ? 1 + 3 * Math.sqrt(into / most) : 1;
  const stands = into > 0 && outof === 0;
  const stroke = stands ? "var(--amber)" : into > 0 ? "var(--accent)" : "var(--line)";
  return html`<svg class="flow-line" viewBox="0 0 40 16" preserveAspectRatio="none" aria-hidden="true"><path d="M0 8H40" stroke=${stroke} stroke-width=${weight} vector-effect="non-scaling-stroke" fill="none" /></svg>`;
}

function Path({ sources, totals }) {
  const most = Math.max(0, ...sources.map((one) => one.received ?? 0));
  const cell = (one, field) => html`<td class="number">${rate(one[field])}<span class="second">/s</span></td>`;
  return html`<div class="scroll"><table>
    <caption class="visually-hidden">The path of events of each source: events a second, and events that wait in the log</caption>
    <thead><tr><th>Source</th><th class="number">Received</th><th></th><th class="number">Accepted</th><th></th><th class="number">In the log</th><th></th><th class="number">Stored</th><th class="number">Stored in all</th><th class="number">Duplicates</th><th class="number">Refused</th><th class="number">Missing</th></tr></thead>
    <tbody>${sources.map((one) => html`<tr key=${one.source}>
      <td><${Source} name=${one.source} /></td>
      ${cell(one, "received")}<td><${Line} into=${one.received} outof=${one.accepted} most=${most} /></td>
      ${cell(one, "accepted")}<td><${Line} into=${one.accepted} outof=${one.logged} most=${most} /></td>
      <td class="number">${number(one.inFlight)}</td><td><${Line} into=${one.inFlight > 0 || one.stored > 0 ? Math.max(one.logged, 0.001) : 0} outof=${one.stored + one.duplicates} most=${most} /></td>
      ${cell(one, "stored")}
      <td class="number">${number(totals.get(one.source)?.stored)}</td>
      ${cell(one, "duplicates")}
      <td class="number">${one.refused > 0 ? html`<a href=${`#/live?source=${encodeURIComponent(one.source)}&outcome=refused`}>${rate(one.refused)}/s</a>` : html`0<span class="second">/s</span>`}</td>
      <td class=${`number ${one.missing > 0 ? "red" : ""}`}>${number(one.missing)}</td>
    </tr>`)}</tbody></table></div>`;
}

function Processes({ instances }) {
  return html`<div class="scroll"><table><thead><tr><th>Process</th><th>State</th><th class="number">Cores</th><th class="number">Memory</th><th class="number">Actors</th><th class="number">Restarts</th></tr></thead>
    <tbody>${instances.map((one) => {
      const actors = flatten(one.actors).filter((node) => !node.children?.length);
      return html`<tr key=${`${one.instance} ${one.service}`}><td><a href=${`#/actors?instance=${encodeURIComponent(one.instance)}`}>${one.service}</a> <span class="second mono">${one.instance}</span></td>
        <td class=${one.ready ? "" : "amber"}>${one.ready ? "ready" : `not ready: ${one.why ?? "no reason told"}`}</td>
        <td class="number">${one.cores === undefined ? "–" : one.cores.toFixed(2)}</td><td class="number">${bytes(one.memoryBytes)}</td>
        <td class="number">${actors.length}</td><td class="number">${actors.reduce((sum, node) => sum + node.restarts, 0)}</td></tr>`;
    })}</tbody></table></div>`;
}

function Empty() {
  const command = `curl -X POST ${location.protocol}//${location.hostname}:3000/webhook -H 'Content-Type: application/json' -d '{"eventId":"first","timestamp":"${new Date().toISOString()}","source":"facebook","funnelStage":"top","eventType":"ad.view","data":{"user":{"userId":"u1","name":"Ada","age":36,"gender":"female","location":{"country":"Kenya","city":"Nairobi"}},"engagement":{"actionTime":"${new Date().toISOString()}","referrer":"newsfeed","videoId":null}}}'`;
  return html`<${Notice} title="No events yet"><p>Send one, and it shows here within a second. <${Copy} text=${command} label="Copy the command" /></p><pre>${command}</pre><//>`;
}

export function Overview() {
  const live = useSignal(flow);
  const link = useSignal(connection);
  const processes = useSignal(fleet);
  const changes = useSignal(notices);
  const ledger = usePolling(() => get("ledger"), 2);
  const totals = new Map((ledger.value?.sources ?? []).map((one) => [one.source, one]));
  const sum = (field) => (ledger.value ? ledger.value.sources.reduce((all, one) => all + one[field], 0) : null);
  const perSecond = (entry, field) => entry.sources.reduce((all, one) => all + (one[field] ?? 0), 0);
  const received = live.history.map((entry) => perSecond(entry, "received"));
  const away = link.state === "away";
  const missing = sum("missing");
  const stored = sum("stored");
  const shown = live.sources.length
    ? live.sources
    : [...totals.keys()].map((source) => ({ source, ...Object.fromEntries(FIELDS.map((field) => [field, 0])), inFlight: totals.get(source).inFlight, missing: totals.get(source).missing }));
  return html`
    <${Away} error=${ledger.error} since=${ledger.since} />
    <section class=${away ? "stale" : ""}>
      <h2 class="visually-hidden">Figures</h2>
      <div class="figures">
        <${Figure} label="Missing" value=${number(missing)} level=${missing > 0 ? "red" : ""} note=${missing > 0 ? "published, neither in the log nor stored" : "every published event is accounted for"} />
        <${Figure} label="Stored" value=${number(stored)} unit="events" note=${`${number(sum("duplicates"))} duplicates, ${number(sum("quarantined"))} set aside`} />
        <${Figure} label="Received" value=${live.at ? rate(live.sources.reduce((all, one) => all + (one.received ?? 0), 0)) : "–"} unit="/s" spark=${received} />
        <${Figure} label="Post to row, p50 / p99" value=${live.postToRow ? `${duration(live.postToRow.p50)}` : "–"} unit=${live.postToRow ? `/ ${duration(live.postToRow.p99)}` : ""} note="accepted until committed" />
        <${Figure} label="In the log" value=${number(live.at ? live.sources.reduce((all, one) => all + (one.inFlight ?? 0), 0) : sum("inFlight"))} unit="events" note="accepted, not stored yet" />
      </div>
    </section>
    <section class=${away ? "stale" : ""}><h2>Path of events</h2>
      ${shown.length ? html`<${Path} sources=${shown} totals=${totals} />` : null}
      ${stored === 0 && !received.some((value) => value > 0) ? html`<${Empty} />` : null}
    </section>
    <div class="columns">
      <section class=${processes.error ? "stale" : ""}><h2>Processes</h2>
        ${processes.instances.length ? html`<${Processes} instances=${processes.instances} />` : html`<${Notice} title="No process was heard of"><p>${processes.error ? processes.error.message : "Each process of the system tells of itself once a second."}</p><//>`}
      </section>
      <section><h2>Changes</h2>
        ${changes.length
          ? html`<ul class="now">${changes.map((one) => html`<li><time datetime=${utc(one.at)} title=${utc(one.at)}>${clock(one.at)}</time><a class=${one.level ?? ""} href=${one.link}>${one.text}</a></li>`)}</ul>`
          : html`<${Notice} title="Nothing has changed since this page was opened"><p>Starts, restarts, and processes that turn unready are listed here.</p><//>`}
      </section>
    </div>`;
}
