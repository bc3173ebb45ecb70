// Dead letters, grouped by reason, source and path.
import { html, useState } from "../vendor/htm-preact-3.1.1.js";
import { get, post, query } from "../api.js";
import { bytes, number } from "../format.js";
import { Json } from "../parts/json.js";
import { Away, Copy, Notice, Source, Time, targetRow } from "../parts/parts.js";
import { usePolling, useSignal } from "../store.js";
import { sources } from "../catalog.js";

const REASONS = ["invalid", "malformed", "quarantined"];
const LIMIT = 500;

function groups(letters) {
  const all = new Map();
  for (const letter of letters) {
    const path = letter.errors?.[0]?.path ?? "";
    const key = JSON.stringify([letter.reason, letter.source, path]);
    const group = all.get(key) ?? { key, reason: letter.reason, source: letter.source, path, message: letter.errors?.[0]?.message ?? "", letters: [] };
    group.letters.push(letter);
    all.set(key, group);
  }
  return [...all.values()].sort((left, right) => right.letters.length - left.letters.length || left.key.localeCompare(right.key));
}

function Letter({ letter }) {
  return html`<div class="box">
    <div class="row"><${Time} at=${letter.receivedAt} absolute=${true} /><span class="mono">${letter.eventId ?? "no eventId"}</span>${letter.eventId ? html`<${Copy} text=${letter.eventId} />` : null}<span class="second">${bytes(letter.payloadLength)}</span>${letter.replayedAt ? html`<span>replayed <${Time} at=${letter.replayedAt} /></span>` : null}</div>
    <${Json} value=${{}} errors=${letter.errors ?? []} />
    ${letter.errorsTruncated ? html`<p class="second">There are more errors than are kept.</p>` : null}
  </div>`;
}

function Replay({ ids }) {
  const [answer, setAnswer] = useState(null);
  const run = async (dryRun) => {
    try {
      setAnswer({ dryRun, value: await post("dead-letters/replay", { ids, dryRun }) });
    } catch (error) {
      setAnswer({ error });
    }
  };
  const passes = answer?.value?.letters?.filter((one) => one.outcome === "accepted").length ?? 0;
  return html`<div class="row"><button onClick=${() => run(true)}>Try a replay (nothing is sent)</button>
    <button disabled=${!(answer?.dryRun && passes)} onClick=${() => run(false)}>Replay ${passes ? number(passes) : ""}</button>
    ${answer?.error ? html`<span class="amber">${answer.error.status === 404 ? "This reporter cannot replay; use the command ess dead-letters replay." : answer.error.message}</span>` : null}
    ${answer?.value ? html`<span>${number(passes)} of ${number(ids.length)} ${answer.dryRun ? "would pass" : "were sent again"}.</span>` : null}</div>`;
}

export function DeadLetters({ params, setParams }) {
  const [open, setOpen] = useState(null);
  const names = useSignal(sources);
  const filters = { source: params.source, reason: params.reason, limit: LIMIT };
  const state = usePolling(() => get(`dead-letters${query(filters)}`), 5, [params.source, params.reason]);
  const letters = state.value?.deadLetters ?? [];
  const all = groups(letters);
  const choose = (name) => (event) => setParams({ ...params, [name]: event.target.value });
  return html`
    <div class="row"><label>Source <select value=${params.source ?? ""} onChange=${choose("source")}><option value="">all</option>${names.concat("unknown").map((name) => html`<option value=${name}>${name}</option>`)}</select></label>
      <label>Reason <select value=${params.reason ?? ""} onChange=${choose("reason")}><option value="">all</option>${REASONS.map((name) => html`<option value=${name}>${name}</option>`)}</select></label>
      <span class="second">${letters.length === LIMIT ? `the newest ${number(LIMIT)}` : `${number(letters.length)} in all`}</span></div>
    <${Away} error=${state.error} since=${state.since} />
    ${state.value && !letters.length ? html`<${Notice} title="No dead letters"><p>Events that the gateway refuses, and events that a collector cannot store, are kept here with their reason.</p><//>` : null}
    ${!state.value && state.loading ? html`<${Notice} title="Loading"><p>The list is asked for.</p><//>` : null}
    ${all.length ? html`<div class="scroll"><table><thead><tr><th>Reason</th><th>Source</th><th>Path</th><th>First error</th><th class="number">Letters</th><th>Newest</th></tr></thead><tbody>
      ${all.map((group) => html`<tr key=${group.key} ...${targetRow(() => setOpen(open === group.key ? null : group.key))} aria-selected=${open === group.key}>
        <td>${group.reason}</td><td>${group.source ? html`<${Source} name=${group.source} />` : "unknown"}</td><td class="wrap mono">${group.path || "(the event)"}</td><td class="wrap">${group.message}</td><td class="number">${number(group.letters.length)}</td><td><${Time} at=${group.letters[0].receivedAt} /></td></tr>`)}
      </tbody></table></div>` : null}
    ${all.filter((group) => group.key === open).map((group) => html`<section><h2>${group.reason}, ${group.source ?? "unknown"}, ${group.path || "the event"}</h2>
      <${Replay} ids=${group.letters.map((letter) => letter.id)} key=${group.key} />
      ${group.letters.slice(0, 20).map((letter) => html`<${Letter} letter=${letter} key=${letter.id} />`)}
      ${group.letters.length > 20 ? html`<p class="second">${number(group.letters.length - 20)} more like these.</p>` : null}</section>`)}`;
}
