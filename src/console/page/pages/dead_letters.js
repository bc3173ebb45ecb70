// Dead letters, grouped by reason, source and path of the first error; each with its bytes, and their replay.
import { html, useEffect, useState } from "../vendor/htm-preact-3.1.1.js";
import { get, query } from "../api.js";
import { reasons, sources } from "../catalog.js";
import { parseExact } from "../exact.js";
import { bytes, dateTime, number, toLocal, utc, zone } from "../format.js";
import { Json } from "../parts/json.js";
import { Away, Choice, Copy, Loading, Notice, Source, Time, targetRow } from "../parts/parts.js";
import { Replay } from "../parts/replay.js";
import { usePolling, useSignal } from "../store.js";

const LIMIT = 1000;
const SHOWN = 50;

const firstOf = (letter) => letter.errors?.[0] ?? { path: "", message: "" };
const keyOf = (letter) => `${letter.reason} ${letter.source ?? "unknown"} ${firstOf(letter).path}`;

function groups(letters) {
  const all = new Map();
  for (const letter of letters) {
    const key = keyOf(letter);
    const { path, message } = firstOf(letter);
    const group = all.get(key) ?? { key, reason: letter.reason, source: letter.source, path, message, letters: [] };
    group.letters.push(letter);
    all.set(key, group);
  }
  return [...all.values()].sort((left, right) => right.letters.length - left.letters.length || left.key.localeCompare(right.key));
}

const OUTCOMES = { accepted: ["would pass", "in the log"], refused: ["would be refused again", "refused again"], replayed: ["replayed before", "replayed before"], unknown: ["no longer there", "no longer there"] };

function State({ letter, result }) {
  if (result) {
    const text = OUTCOMES[result.outcome]?.[result.dryRun ? 0 : 1] ?? result.outcome;
    return html`<span class=${result.outcome === "refused" ? "amber" : ""}>${text}</span>`;
  }
  if (letter.replayedAt) return html`replayed <${Time} at=${letter.replayedAt} />`;
  return letter.history?.length ? html`<span class="second">refused again: ${number(letter.history.length)}</span>` : html`<span class="second">kept</span>`;
}

// A letter's bytes with the errors at their paths, and as they are kept.
function Letter({ letter, result, onResults }) {
  const [state, setState] = useState({});
  useEffect(() => {
    let ended = false;
    get(`dead-letters/${letter.id}`).then((value) => !ended && setState({ value }), (error) => !ended && setState({ error }));
    return () => { ended = true; };
  }, [letter.id]);
  const whole = state.value ?? letter;
  const errors = (result?.errors?.length ? result : whole).errors ?? [];
  const value = state.value ? parseExact(state.value.payload) : undefined;
  return html`<div class="letter">
    <div class="row"><span>Letter <code>${letter.id}</code> <${Copy} text=${letter.id} /></span>
      ${letter.eventId ? html`<a href=${`#/event?id=${encodeURIComponent(letter.eventId)}`}>The path of ${letter.eventId}</a>` : null}
      <span class="second">request <code>${letter.correlationId}</code></span></div>
    ${state.error ? (state.error.status === 404 ? html`<p class="amber">The letter is no longer kept.</p>` : html`<${Away} error=${state.error} />`) : null}
    ${!state.value && !state.error ? html`<p class="second">Its bytes are asked for.</p>` : null}
    ${value !== undefined ? html`<${Json} value=${value} errors=${errors} />` : html`<ul class="errors">${errors.map((error) => html`<li><code>${error.path || "the event"}</code> <span class="mark">${error.message}</span></li>`)}</ul>`}
    ${whole.errorsTruncated ? html`<p class="second">There are more errors than are shown.</p>` : null}
    ${state.value ? html`<details class="raw"><summary>Bytes as kept: ${bytes(letter.payloadLength)}${state.value.payloadChanged ? ", shown in part" : ""} <${Copy} text=${state.value.payload} /></summary><pre>${state.value.payload}</pre></details>` : null}
    ${letter.replayedAt && !result ? null : html`<${Replay} what=${{ ids: [letter.id] }} key=${letter.id} name="this letter" onResults=${onResults} />`}
  </div>`;
}

function Letters({ group, open, onOpen, results, onResults }) {
  const waiting = group.letters.filter((letter) => !letter.replayedAt);
  // The answer of a replay stays in sight when all of its letters are replayed.
  const told = group.letters.some((letter) => results.get(letter.id));
  return html`<section><h2>${group.reason}, ${group.source ?? "unknown source"} <span class="plain">${group.path || "(the event)"}</span></h2>
    ${waiting.length || told ? html`<${Replay} what=${{ ids: waiting.map((letter) => letter.id) }} key=${group.key} name=${`these ${number(waiting.length)}`} onResults=${onResults} />` : html`<p class="second">All of these were replayed.</p>`}
    <div class="scroll"><table><thead><tr><th>Received</th><th>Event</th><th>First error</th><th class="number">Bytes</th><th>State</th></tr></thead><tbody>
      ${group.letters.slice(0, SHOWN).map((letter) => html`
        <tr key=${letter.id} ...${targetRow(() => onOpen(open === letter.id ? "" : letter.id))} aria-expanded=${open === letter.id} aria-selected=${open === letter.id}>
          <td><time datetime=${utc(letter.receivedAt)} title=${`${letter.receivedAt} (UTC)`}>${dateTime(letter.receivedAt)}</time></td><td class="wrap mono">${letter.eventId ?? html`<span class="second">no eventId</span>`}</td>
          <td class="wrap">${firstOf(letter).message}${letter.errors?.length > 1 ? html`<span class="second"> and ${number(letter.errors.length - 1)} more</span>` : null}</td><td class="number">${number(letter.payloadLength)}</td><td class="wrap"><${State} letter=${letter} result=${results.get(letter.id)} /></td></tr>
        ${open === letter.id ? html`<tr key=${`${letter.id} open`}><td colspan="5"><${Letter} letter=${letter} result=${results.get(letter.id)} onResults=${onResults} /></td></tr>` : null}`)}
    </tbody></table></div>
    ${group.letters.length > SHOWN ? html`<p class="second">${number(group.letters.length - SHOWN)} more like these, older.</p>` : null}</section>`;
}

export function DeadLetters({ params, setParams }) {
  const [results, setResults] = useState(new Map());
  const names = useSignal(sources);
  const words = useSignal(reasons);
  const filters = { source: params.source, reason: params.reason, from: params.from, to: params.to };
  const asked = query({ ...filters, limit: LIMIT });
  const [round, setRound] = useState(0);
  const state = usePolling(() => get(`dead-letters${asked}`), 5, [asked, round]);
  const letters = state.value?.deadLetters ?? [];
  const text = (params.search ?? "").toLowerCase();
  const found = text ? letters.filter((letter) => `${letter.id} ${letter.eventId} ${letter.correlationId} ${JSON.stringify(letter.errors)}`.toLowerCase().includes(text)) : letters;
  const all = groups(found);
  const open = all.find((group) => group.key === params.group) ?? (text && all.length === 1 ? all[0] : null);
  const choose = (name) => (event) => setParams({ ...params, [name]: event.target.value, group: undefined, letter: undefined });
  const instant = (name) => (event) => setParams({ ...params, [name]: event.target.value ? new Date(event.target.value).toISOString() : undefined, group: undefined });
  const onResults = ({ dryRun, letters: list }) => {
    setResults((known) => new Map([...known, ...list.map((one) => [one.id, { ...one, dryRun }])]));
    if (!dryRun) setRound((number) => number + 1);
  };
  const narrowed = Object.values(filters).some(Boolean) || text;
  return html`
    <div class="row" role="search">
      <${Choice} label="Source" value=${params.source} values=${names} onChange=${choose("source")} />
      <${Choice} label="Reason" value=${params.reason} values=${words} onChange=${choose("reason")} />
      <label>From <input type="datetime-local" value=${params.from ? toLocal(params.from) : ""} onChange=${instant("from")} /></label>
      <label>To <input type="datetime-local" value=${params.to ? toLocal(params.to) : ""} onChange=${instant("to")} /></label><span class="second">${zone()}</span>
      <input class="grow" type="search" data-search placeholder="Search: eventId, request, error" aria-label="Search in the list" value=${params.search ?? ""} onInput=${choose("search")} />
    </div>
    <${Away} error=${state.error} since=${state.since} />
    ${!state.value && !state.error ? html`<${Loading} />` : null}
    ${state.value && !found.length ? html`<${Notice} title=${narrowed ? "No dead letter matches" : "No dead letters"}><p>${narrowed ? "Take a longer range, or fewer filters." : "Events that the gateway refuses, and events that a collector cannot store, are kept here with their bytes and the reason. There are none."}</p><//>` : null}
    ${found.length ? html`<div class=${state.error ? "stale" : ""}><p class="row spread"><span class="second">${letters.length === LIMIT ? `The newest ${number(LIMIT)} letters` : `${number(found.length)} ${found.length === 1 ? "letter" : "letters"}`} in ${number(all.length)} ${all.length === 1 ? "group" : "groups"}.</span></p>
      <div class="scroll"><table><thead><tr><th>Path</th><th>First error</th><th>Source</th><th>Reason</th><th class="number">Letters</th><th>Newest</th></tr></thead><tbody>
      ${all.map((group) => html`<tr key=${group.key} ...${targetRow(() => setParams({ ...params, group: open?.key === group.key ? undefined : group.key, letter: undefined }))} aria-expanded=${open?.key === group.key} aria-selected=${open?.key === group.key}>
        <td class="wrap mono">${group.path || "(the event)"}</td><td class="wrap">${group.message}</td><td>${group.source ? html`<${Source} name=${group.source} />` : html`<span class="second">unknown</span>`}</td><td>${group.reason}</td><td class="number">${number(group.letters.length)}</td><td><${Time} at=${group.letters[0].receivedAt} /></td></tr>`)}
      </tbody></table></div></div>` : null}
    ${open ? html`<${Letters} group=${open} key=${open.key} open=${params.letter} onOpen=${(id) => setParams({ ...params, group: open.key, letter: id || undefined })} results=${results} onResults=${onResults} />` : null}
    ${found.length && !text ? html`<section><h2>${narrowed ? "All that match the filters" : "All letters"}</h2><${Replay} what=${{ ...filters, limit: LIMIT }} key=${asked} name=${narrowed ? "all that match" : "all"} onResults=${onResults} /></section>` : null}`;
}
