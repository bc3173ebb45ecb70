// The path of one event through the system, found by its id.
import { html, useEffect, useState } from "../vendor/htm-preact-3.1.1.js";
import { get, query } from "../api.js";
import { dateTime, duration, utc } from "../format.js";
import { Away, Copy, Loading, Notice, Source } from "../parts/parts.js";

const STEPS = [["acceptedAt", "accepted"], ["loggedAt", "in the log"], ["collectedAt", "collected"], ["storedAt", "stored"]];

function Steps({ match }) {
  // A letter has the steps that it came to; the reason is in the letter.
  const steps = match.state === "stored" ? STEPS : STEPS.filter(([field]) => match[field]);
  const seconds = (from, to) => (match[from] && match[to] ? (new Date(match[to]) - new Date(match[from])) / 1000 : null);
  if (!steps.length) return html`<p class="second">It was refused before it was accepted.</p>`;
  return html`<ol class="steps">${steps.flatMap(([field, label], at) => [
    at ? html`<li class="between" aria-hidden="true">${duration(seconds(steps[at - 1][0], field))} →</li>` : null,
    html`<li class=${`step ${match[field] ? "" : "missing"}`}><div class="second">${label}</div>${match[field] ? html`<time datetime=${utc(match[field])} title=${`${match[field]} (UTC)`}>${dateTime(match[field])}</time>` : "not known"}</li>`,
  ])}</ol>`;
}

function Match({ match, id }) {
  const stored = match.state === "stored";
  const whole = stored && match.acceptedAt ? (new Date(match.storedAt) - new Date(match.acceptedAt)) / 1000 : null;
  return html`<section><h2>${stored ? "Stored" : "Dead letter"}</h2>
    <div class="row"><span>${match.source ? html`<${Source} name=${match.source} />` : html`<span class="second">unknown source</span>`}</span>${whole === null ? null : html`<span>${duration(whole)} <span class="second">from POST to row</span></span>`}
      ${stored ? null : html`<a href=${`#/dead-letters?search=${encodeURIComponent(id)}`}>Show the letter, its errors and its replay</a>`}</div>
    <${Steps} match=${match} /></section>`;
}

export function Event({ params, setParams }) {
  const [answer, setAnswer] = useState(null);
  const [typed, setTyped] = useState(params.id ?? "");
  const [round, setRound] = useState(0);
  useEffect(() => {
    setTyped(params.id ?? "");
    if (!params.id) {
      setAnswer(null);
      return;
    }
    let ended = false;
    let again;
    const look = () => get(`events/${encodeURIComponent(params.id)}${query({ source: params.source })}`).then(
      (value) => !ended && setAnswer({ id: params.id, value }),
      (error) => {
        if (ended) return;
        setAnswer({ id: params.id, error, since: new Date() });
        // It may be on its way, or the reporter comes back.
        again = setTimeout(look, 2000);
      });
    look();
    return () => {
      ended = true;
      clearTimeout(again);
    };
  }, [params.id, params.source, round]);
  const submit = (event) => {
    event.preventDefault();
    setParams({ ...params, id: typed.trim() });
    setRound((number) => number + 1);
  };
  const shown = answer?.id === params.id ? answer : null;
  const none = shown?.error?.status === 404;
  return html`
    <form class="row" onSubmit=${submit} role="search"><input class="grow" type="search" name="id" data-search placeholder="eventId" aria-label="eventId" value=${typed} onInput=${(event) => setTyped(event.target.value)} /><button type="submit" class="main">Find</button></form>
    ${params.id ? html`<p class="row"><code>${params.id}</code><${Copy} text=${params.id} /></p>` : null}
    ${shown?.error && !none ? html`<${Away} error=${shown.error} since=${shown.since} />` : null}
    ${params.id && !shown ? html`<${Loading} />` : null}
    ${none ? html`<${Notice} title="No event has this id"><p>It is neither stored nor among the dead letters. If it was accepted a moment ago, it is still in the log: this page looks again every 2 s.</p><//>` : null}
    ${!params.id ? html`<${Notice} title="Find an event by its eventId"><p>You see when it was accepted, logged, collected and stored, the time between, and dead letters of the same id.</p><//>` : null}
    ${shown?.value?.matches.map((match, at) => html`<${Match} match=${match} id=${params.id} key=${at} />`)}
    ${shown?.value?.matchesTruncated ? html`<p class="second">There are more dead letters of this id.</p>` : null}`;
}
