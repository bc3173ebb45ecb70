// What is not well now, in words, the most important first; and what is worth a look although all is well.
import { number, rate } from "./format.js";

// A process that sends nothing for this long, in seconds, is told to be silent; one message a second is due while
// somebody looks.
export const SILENT = 2;
// Part of its bound from which a log is told to fill up.
const FILLING = 0.8;
// Refused events a second from which they are told.
const REFUSED = 1;
// Seconds of flow that are looked at.
const SPAN = 10;

// When each problem was first seen, by its key.
const firstSeen = new Map();

// While nobody looks a process tells of itself less often: silence counts once this page has looked for a while.
const ATTENTIVE = 3;
let watchedSince = null;
export function watching(yes) {
  watchedSince = yes ? (watchedSince ?? Date.now()) : null;
}

const isAttentive = () => watchedSince !== null && Date.now() - watchedSince >= ATTENTIVE * 1000;

// Processes with `silent`, as it is when they are asked for: later looks at the same answer do not change it.
export function withSilence(instances) {
  const attentive = isAttentive();
  return instances.map((one) => ({ ...one, silent: attentive && one.silentSeconds >= SILENT }));
}

export function stateOf(one) {
  if (one.silent) return { level: "amber", text: "silent: nothing is heard of it" };
  if (!one.ready) return { level: "amber", text: `not ready: ${one.why ?? "no reason told"}` };
  return { level: "", text: "ready" };
}

export function problems({ connection, flow, fleet, ledger }) {
  const found = [...ofConnection(connection), ...ofLedger(ledger), ...ofProcesses(fleet), ...ofSources(flow)];
  const now = new Date();
  const keys = new Set(found.map((one) => one.key));
  for (const key of [...firstSeen.keys()]) if (!keys.has(key)) firstSeen.delete(key);
  for (const one of found) {
    if (!firstSeen.has(one.key)) firstSeen.set(one.key, one.since ?? now);
    one.since = firstSeen.get(one.key);
  }
  const order = { red: 0, amber: 1, note: 2 };
  // A reporter that was started again has heard of no process at first.
  const lasting = found.filter((one) => !one.lasting || now - one.since >= one.lasting * 1000);
  return lasting.sort((left, right) => order[left.level] - order[right.level]);
}

function ofConnection({ state, since, why }) {
  if (state === "denied") return [{ key: "denied", level: "amber", text: "a token is needed" }];
  if (state === "away") return [{ key: "away", level: "amber", since, text: `no live figures: ${why}` }];
  return [];
}

function ofLedger(ledger) {
  if (!ledger) return [];
  const found = (ledger.value?.sources ?? []).filter((one) => one.missing > 0).map((one) => ({
    key: `missing ${one.source}`, level: "red", link: "#/", text: `${one.source}: ${number(one.missing)} events are missing: published, and neither in the log nor stored`,
  }));
  if (ledger.error && ledger.error.status !== 401) found.push({ key: "ledger", level: "amber", since: ledger.since, text: `no ledger: ${ledger.error.message}` });
  return found;
}

function ofProcesses({ instances, error, at }) {
  if (error || !at) return [];
  const unwell = instances.filter((one) => !one.ready || one.silent);
  const found = unwell.map((one) => ({ key: `process ${one.service} ${one.instance}`, level: "amber", link: `#/actors?instance=${encodeURIComponent(one.instance)}`, text: `${one.service} ${one.instance}: ${stateOf(one).text}` }));
  if (!instances.some((one) => one.service.startsWith("collector"))) found.push({ key: "no collector", lasting: 3, level: "amber", link: "#/actors", text: "no collector is heard of: accepted events wait in the log" });
  if (!instances.some((one) => one.service.startsWith("gateway"))) found.push({ key: "no gateway", lasting: 3, level: "amber", link: "#/actors", text: "no gateway is heard of: no events are taken" });
  return found;
}

function ofSources(flow) {
  return flow.sources.flatMap((one) => {
    const found = [];
    const add = (kind, level, text, link) => found.push({ key: `${kind} ${one.source}`, level, text: `${one.source}: ${text}`, link });
    if (idles(flow.history, one.source)) add("idle", "amber", `${number(one.inFlight)} events wait in the log, and none is stored: its collector stores nothing`, "#/actors");
    else if (grows(flow.history, one.source)) add("lag", "amber", `the log grows: ${number(one.inFlight)} events wait for their collector`, "#/actors");
    if (one.logMaxBytes && one.logBytes / one.logMaxBytes >= FILLING) add("full", "amber", `its log is ${Math.round((100 * one.logBytes) / one.logMaxBytes)} % full; a full one refuses events with 503`, "#/");
    if (one.refused >= REFUSED) add("refused", "note", `${rate(one.refused)} events/s are refused`, `#/live?outcome=refused${one.source === "unknown" ? "" : `&source=${encodeURIComponent(one.source)}`}`);
    return found;
  });
}

const last = (history, source) => history.slice(-SPAN).map((entry) => entry.sources.find((one) => one.source === source));

// True if events of the source have waited all the time, and none was stored.
function idles(history, source) {
  const all = last(history, source);
  return all.length === SPAN && all.every((one) => one && one.inFlight > 0 && one.stored === 0 && one.duplicates === 0);
}

// True if many events of the source have waited all the time, and ever more of them.
function grows(history, source) {
  const waits = last(history, source).map((one) => one?.inFlight ?? 0);
  const half = SPAN / 2;
  return waits.length === SPAN && waits[0] > 0 && Math.min(...waits.slice(half)) > Math.max(...waits.slice(0, half)) && waits.at(-1) > 10_000;
}

// The state of the whole in one line.
export function headline(found, connection) {
  const [first] = found;
  if (first && first.level !== "note") return first;
  if (connection.state === "connecting") return { level: "", text: "connecting" };
  return { level: "well", text: "all well" };
}

