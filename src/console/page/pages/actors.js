// The tree of every process: state, mailbox against its bound, messages a second, time blocked, restarts.
import { html, useEffect, useRef, useState } from "../vendor/htm-preact-3.1.1.js";
import { post } from "../api.js";
import { fleet } from "../feed.js";
import { duration, number, rate } from "../format.js";
import { AskAdminToken, Away, Notice, Time } from "../parts/parts.js";
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

function Restart({ instance, name }) {
  const [state, setState] = useState("");
  const run = async () => {
    try {
      await post(`fleet/${encodeURIComponent(instance)}/actors/${encodeURIComponent(name)}/restart`, {});
      setState("asked");
    } catch (error) {
      setState(error.status === 401 ? "ask" : error.message);
    }
  };
  if (state === "ask") return html`<${AskAdminToken} onDone=${run} />`;
  return html`<button class="link" aria-label=${`Restart ${name}`} onClick=${run}>Restart</button>${state ? html` <span class="second">${state}</span>` : null}`;
}

export function Actors({ params }) {
  const state = useSignal(fleet);
  const perSecond = useRates(state);
  const instances = params.instance ? state.instances.filter((one) => one.instance === params.instance) : state.instances;
  return html`
    <${Away} error=${state.error} since=${state.since} />
    ${params.instance ? html`<p><a href="#/actors">All processes</a></p>` : null}
    ${!state.at && !state.error ? html`<p class="second">Asking…</p>` : null}
    ${state.at && !instances.length ? html`<${Notice} title="No process was heard of"><p>Each process tells of itself once a second; one that is silent for 10 s leaves this list.</p><//>` : null}
    ${instances.map((one) => html`<section key=${`${one.instance} ${one.service}`} class=${state.error ? "stale" : ""}>
      <h2>${one.service} ${one.instance}</h2>
      <p class="row"><span class=${one.ready ? "" : "amber"}>${one.ready ? "ready" : `not ready: ${one.why ?? "no reason told"}`}</span><span class="second">version ${one.version}, started <${Time} at=${one.startedAt} /></span></p>
      <div class="scroll"><table><thead><tr><th>Actor</th><th>State</th><th>Mailbox</th><th class="number">Messages</th><th class="number">Blocked</th><th class="number">Restarts</th><th>Last failure</th><th></th></tr></thead>
      <tbody>${rows(one.actors).map(({ node, depth }) => {
        const { depth: filled = 0, bound = 0 } = node.mailbox ?? {};
        return html`<tr key=${node.name}><td class=${`depth-${Math.min(depth, 3)}`}>${node.name}</td><td class=${node.state === "running" ? "" : "amber"}>${node.state}</td>
          <td class="bar">${bound ? html`<span title=${`${number(filled)} of ${number(bound)}`}>${number(filled)} <span class="second">of ${number(bound)}</span></span><div class="track"><div style=${{ width: `${Math.min(100, (filled / bound) * 100)}%` }}></div></div>` : html`<span class="second">none</span>`}</td>
          <td class="number">${rate(perSecond(one, node))}<span class="second">/s</span></td><td class="number">${duration(node.blockedSeconds)}</td><td class="number">${number(node.restarts)}</td><td class="wrap">${node.lastFailure ?? ""}</td>
          <td>${node.children?.length ? null : html`<${Restart} instance=${one.instance} name=${node.name} />`}</td></tr>`;
      })}</tbody></table></div></section>`)}`;
}
