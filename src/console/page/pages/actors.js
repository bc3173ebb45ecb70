// The tree of every process: state, mailbox against its bound, messages a second, time blocked, restarts.
import { html, useEffect, useRef, useState } from "../vendor/htm-preact-3.1.1.js";
import { adminToken, post } from "../api.js";
import { fleet } from "../feed.js";
import { bytes, duration, number, rate } from "../format.js";
import { AskAdminToken, Away, Choice, Loading, Notice, Time } from "../parts/parts.js";
import { stateOf } from "../state.js";
import { useSignal } from "../store.js";

function rows(nodes, depth = 0, into = []) {
  for (const node of nodes ?? []) {
    into.push({ node, depth });
    rows(node.children, depth + 1, into);
  }
  return into;
}

// Messages a second by the node's counter, over the last 5 s.
function useRates(state) {
  const seen = useRef(new Map());
  useEffect(() => {
    const now = Date.now() / 1000;
    for (const one of state.instances) {
      for (const { node } of rows(one.actors)) {
        const key = `${one.instance} ${one.service} ${node.name}`;
        const list = (seen.current.get(key) ?? []).concat([[now, node.handled]]).filter(([at]) => now - at < 6);
        seen.current.set(key, list);
      }
    }
  }, [state]);
  return (one, node) => {
    const list = seen.current.get(`${one.instance} ${one.service} ${node.name}`) ?? [];
    if (list.length < 2) return null;
    const [[from, before], [to, after]] = [list[0], list.at(-1)];
    return Math.max(0, (after - before) / (to - from));
  };
}

// Restarts an actor, and says when the process has done so.
function Restart({ instance, node }) {
  const [state, setState] = useState({ name: "" });
  const run = async () => {
    setState({ name: "sent", before: node.restarts });
    try {
      await post(`fleet/${encodeURIComponent(instance)}/actors/${encodeURIComponent(node.name)}/restart`, {});
    } catch (error) {
      setState({ name: error.status === 401 ? "ask" : "failed", error });
    }
  };
  if (state.name === "ask") return html`<${AskAdminToken} wrong=${Boolean(adminToken.get())} onDone=${run} />`;
  const done = state.name === "sent" && node.restarts > state.before;
  const text = done ? "restarted" : state.name === "sent" ? "asked" : state.name === "failed" ? (state.error.status === 403 ? "off: ESS_ADMIN_TOKEN is not set" : state.error.message) : "";
  return html`<button class="link" aria-label=${`Restart ${node.name}`} disabled=${state.name === "sent" && !done} onClick=${run}>Restart</button> <span role="status" class=${state.name === "failed" ? "amber" : "second"}>${text}</span>`;
}

function Row({ one, node, depth, handled }) {
  const { depth: filled = 0, bound = 0 } = node.mailbox ?? {};
  if (node.children?.length) {
    // A group has the worst state of its members, and no messages of its own.
    return html`<tr><td class=${`depth-${Math.min(depth, 3)} branch`}>${node.name}</td><td class=${node.state === "running" ? "second" : "amber"}>${node.state}</td><td></td><td></td><td></td><td></td><td class="wrap">${node.lastFailure ?? ""}</td><td></td></tr>`;
  }
  return html`<tr><td class=${`depth-${Math.min(depth, 3)}`}>${node.name}</td><td class=${node.state === "running" ? "" : "amber"}>${node.state}</td>
    <td class="gauge">${bound ? html`<span>${number(filled)} <span class="second">of ${number(bound)}</span></span><div class="track"><div style=${{ width: `${Math.min(100, (filled / bound) * 100)}%` }}></div></div>` : html`<span class="second">–</span>`}</td>
    <td class="number">${handled === null ? "–" : rate(handled)}<span class="second">/s</span></td><td class="number">${duration(node.blockedSeconds)}</td><td class=${`number ${node.restarts ? "amber" : ""}`}>${number(node.restarts)}</td><td class="wrap">${node.lastFailure ?? ""}</td>
    <td class="action"><${Restart} instance=${one.instance} node=${node} /></td></tr>`;
}

function Process({ one, perSecond, stale }) {
  const state = stateOf(one);
  return html`<section class=${stale ? "stale" : ""}><h2>${one.service} <span class="plain">${one.instance}</span></h2>
    <p class="row"><span class=${state.level}>${state.text}</span><span class="second">${(one.cores ?? 0).toFixed(2)} cores, ${bytes(one.memoryBytes)}, version ${one.version}, started <${Time} at=${one.startedAt} /></span></p>
    <div class="scroll"><table class="actors"><thead><tr><th>Actor</th><th>State</th><th>Mailbox</th><th class="number">Messages</th><th class="number">Blocked</th><th class="number">Restarts</th><th>Last failure</th><th></th></tr></thead>
    <tbody>${rows(one.actors).map(({ node, depth }) => html`<${Row} key=${node.name} one=${one} node=${node} depth=${depth} handled=${perSecond(one, node)} />`)}</tbody></table></div>
    ${one.actorsTruncated ? html`<p class="second">Actors below the groups were left out: the message of this process would have been too large. Its own <code>/actors</code> has all.</p>` : null}</section>`;
}

export function Actors({ params, setParams }) {
  const state = useSignal(fleet);
  const perSecond = useRates(state);
  const services = [...new Set(state.instances.map((one) => one.service))].sort();
  const shown = state.instances.filter((one) => (!params.instance || one.instance === params.instance) && (!params.service || one.service === params.service));
  return html`
    <div class="row"><${Choice} label="Service" value=${params.service} values=${services} onChange=${(event) => setParams({ ...params, service: event.target.value })} />
      ${params.instance || params.service ? html`<a href="#/actors">All processes</a>` : null}<span class="second">${state.at ? `${number(shown.length)} of ${number(state.instances.length)} services` : ""}</span></div>
    <${Away} error=${state.error} since=${state.since} />
    ${!state.at && !state.error ? html`<${Loading} />` : null}
    ${state.at && !shown.length ? html`<${Notice} title=${state.instances.length ? "This process is not heard of" : "No process is heard of"}><p>Each process tells of itself once a second; one that is silent for 10 s leaves this list.</p><//>` : null}
    ${shown.map((one) => html`<${Process} one=${one} key=${`${one.instance} ${one.service}`} perSecond=${perSecond} stale=${Boolean(state.error)} />`)}`;
}
