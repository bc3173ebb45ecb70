// One event's way through the system, found by its id.
import { html, useEffect, useState } from "../vendor/htm-preact-3.1.1.js";
import { get, query } from "../api.js";
import { dateTime, duration, utc } from "../format.js";
import { Away, Copy, Notice, Source } from "../parts/parts.js";

const STEPS = [["acceptedAt", "accepted"], ["loggedAt", "in the log"], ["collectedAt", "collected"], ["storedAt", "stored"]];

function Way({ match }) {
  const seconds = (from, to) => (match[from] && match[to] ? (new Date(match[to]) - new Date(match[from])) / 1000 : null);
  return html`<div class="steps">${STEPS.flatMap(([field, label], at) => [
    at ? html`<span class="between">${duration(seconds(STEPS[at - 1][0], field))} →</span>` : null,
    html`<div class=${`step ${match[field] ? "" : "missing"}`}><div class="second">${label}</div>${match[field] ? html`<time datetime=${utc(match[field])} title=${`${match[field]} (UTC)`}>${dateTime(match[field])}</time>` : "not known"}</div>`,
  ])}</div>`;
}

export function Event({ params, setParams }) {
  const [answer, setAnswer] = useState(null);
  const [typed, setTyped] = useState(params.id ?? "");
  useEffect(() => {
    setTyped(params.id ?? "");
    setAnswer(null);
    if (!params.id) return;
    let ended = false;
    const look = get(`events/${encodeURIComponent(params.id)}${query({ source: params.source })}`);
    look.then((value) => !ended && setAnswer({ value }), (error) => !ended && setAnswer({ error }));
    return () => { ended = true; };
  }, [params.id, params.source]);
  const submit = (event) => {
    event.preventDefault();
    setParams({ ...params, id: typed.trim() });
  };
  const none = answer?.error?.status === 404;
  return html`
    <form class="row" onSubmit=${submit} role="search"><input class="grow" type="search" data-search placeholder="eventId" aria-label="eventId" value=${typed} onInput=${(event) => setTyped(event.target.value)} /><button type="submit">Find</button></form>
    ${answer?.error && !none ? html`<${Away} error=${answer.error} />` : null}
    ${none ? html`<${Notice} title="No event has this id"><p>It is neither stored nor among the dead letters. If it was accepted a moment ago, it may still be in the log: look again.</p><//>` : null}
    ${!params.id ? html`<${Notice} title="Find an event by its eventId"><p>You see when it was accepted, logged, collected and stored, the time between, and dead letters of the same id.</p><//>` : null}
    ${answer?.value?.matches.map((match) => html`<section><h2>${match.state === "stored" ? "Stored" : "Dead letter"}</h2>
      <div class="row"><span><${Source} name=${match.source} /></span><span class="mono">${params.id}</span><${Copy} text=${params.id} />${match.state === "deadLetter" ? html`<a href="#/dead-letters">Dead letters</a>` : null}</div>
      <${Way} match=${match} /></section>`)}`;
}
