// The live feed: one connection to /live for all views, and the fleet once a second. Both come back by themselves.
import { allowed, get, listen, query, Refused } from "./api.js";
import { learnSources } from "./catalog.js";
import { watching, withSilence } from "./state.js";
import { signal } from "./store.js";

const HISTORY = 300; // seconds of flow that sparklines show
const SAMPLES = 500;
const MEAN = 5; // seconds over which a rate is the mean

// `at`: time of the last flow; `since`: time since which the feed is away; null while it is there.
export const connection = signal({ state: "connecting", since: null, why: "" });
export const flow = signal({ at: null, sources: [], postToRow: null, history: [] });
export const samples = signal({ list: [], missed: 0, held: 0 });
export const fleet = signal({ instances: [], error: null, since: null, at: null });
export const ledger = signal({ value: null, error: null, since: null });
export const notices = signal([]);

let paused = false;
let waiting = [];
let filter = {};
let current = null;

export function pause(value) {
  paused = value;
  if (!paused) {
    const list = waiting.concat(samples.get().list).slice(0, SAMPLES);
    waiting = [];
    samples.set({ ...samples.get(), list, held: 0 });
  }
}

export function clearSamples() {
  waiting = [];
  fresh.length = 0;
  samples.set({ list: [], missed: 0, held: 0 });
}

// Filters of the samples; the server applies them, so that a rare event is not crowded out by frequent ones.
export function setFilter(next) {
  if (JSON.stringify(next) === JSON.stringify(filter)) return;
  filter = next;
  clearSamples();
  current?.abort();
}

function mean(history, source, field) {
  const last = history.slice(-MEAN);
  if (!last.length) return null;
  const of = (entry) => entry.sources.find((one) => one.source === source)?.[field] ?? 0;
  return last.reduce((sum, entry) => sum + of(entry), 0) / last.length;
}

const RATES = ["received", "accepted", "refused", "logged", "stored", "duplicates"];

function onFlow(data) {
  learnSources(data.sources.map((one) => one.source));
  const history = flow.get().history.concat([data]).slice(-HISTORY);
  const sources = data.sources.map((one) => ({
    ...one,
    ...Object.fromEntries(RATES.map((field) => [field, mean(history, one.source, field)])),
  }));
  flow.set({ at: data.at ?? new Date().toISOString(), sources, postToRow: data.postToRow ?? null, history });
}

let serial = 0;
// Samples are shown twice a second: a list that moves with each of them cannot be read.
const EVERY = 500;
let fresh = [];

function onSample(data) {
  serial += 1;
  fresh.unshift({ ...data, serial });
  if (fresh.length === 1) setTimeout(showSamples, EVERY);
}

function showSamples() {
  const { list, ...rest } = samples.get();
  if (paused) {
    waiting = fresh.concat(waiting).slice(0, SAMPLES);
    samples.set({ ...rest, list, held: waiting.length });
  } else {
    samples.set({ ...rest, list: fresh.concat(list).slice(0, SAMPLES) });
  }
  fresh = [];
}

function on(event, data) {
  watching(true);
  if (connection.get().state !== "connected") connection.set({ state: "connected", since: null, why: "" });
  if (event === "flow") onFlow(data);
  else if (event === "sample") onSample(data);
  else if (event === "missed") samples.set({ ...samples.get(), missed: samples.get().missed + (data.samples ?? 0) });
}

const sleep = (seconds) => new Promise((done) => setTimeout(done, seconds * 1000));
// A feed that sends nothing for this long is taken for lost: a flow is due each second.
const SILENCE = 3;

export async function run() {
  let wait = 0.5;
  for (;;) {
    current = new AbortController();
    const abort = current;
    let last = Date.now();
    const watch = setInterval(() => Date.now() - last > SILENCE * 1000 && abort.abort(), 500);
    try {
      await listen(`live${query(filter)}`, abort.signal, (event, data) => {
        last = Date.now();
        wait = 0.5;
        on(event, data);
      });
      throw new Error("the reporter ended the feed");
    } catch (error) {
      const refused = error instanceof Refused && error.status === 401;
      const why = error.name === "AbortError" ? "nothing came for 3 s" : error.message;
      const since = connection.get().since ?? new Date();
      connection.set({ state: refused ? "denied" : "away", since, why });
      if (refused) await allowed();
    } finally {
      watching(false);
      clearInterval(watch);
    }
    await sleep(wait);
    wait = Math.min(wait * 2, 2);
  }
}

export async function watchLedger() {
  for (;;) {
    await allowed();
    try {
      const value = await get("ledger");
      learnSources(value.sources.map((one) => one.source));
      ledger.set({ value, error: null, since: null });
    } catch (error) {
      const known = ledger.get();
      ledger.set({ ...known, error, since: known.since ?? new Date() });
    }
    await sleep(2);
  }
}

export async function watchFleet() {
  let before = new Map();
  for (;;) {
    await allowed();
    try {
      const instances = withSilence((await get("fleet")).instances);
      const now = new Date();
      noticeChanges(before, instances, now);
      before = new Map(instances.map((one) => [keyOf(one), one]));
      fleet.set({ instances, error: null, since: null, at: now });
    } catch (error) {
      const known = fleet.get();
      fleet.set({ ...known, error, since: known.since ?? new Date() });
    }
    await sleep(1);
  }
}

function flatten(nodes, into = []) {
  for (const node of nodes ?? []) {
    into.push(node);
    flatten(node.children, into);
  }
  return into;
}

const keyOf = (one) => `${one.service} ${one.instance}`;

function notice(at, text, link, level) {
  notices.set([{ at, text, link, level }].concat(notices.get()).slice(0, 20));
}

function noticeChanges(before, instances, at) {
  if (!before.size) return;
  for (const one of instances) {
    const known = before.get(keyOf(one));
    if (!known) {
      notice(at, `${one.service} ${one.instance}: started`, "#/actors");
      continue;
    }
    if (!known.silent && one.silent) notice(at, `${one.service} ${one.instance}: nothing heard for ${one.silentSeconds.toFixed(1)} s`, "#/actors", "amber");
    if (known.silent && !one.silent) notice(at, `${one.service} ${one.instance}: heard again`, "#/actors");
    if (known.ready && !one.ready) notice(at, `${one.service} ${one.instance}: not ready: ${one.why ?? "no reason told"}`, "#/actors", "amber");
    if (!known.ready && one.ready) notice(at, `${one.service} ${one.instance}: ready again`, "#/actors");
    const restarts = new Map(flatten(known.actors).map((node) => [node.name, node.restarts]));
    for (const node of flatten(one.actors)) {
      const more = node.restarts - (restarts.get(node.name) ?? node.restarts);
      if (more > 0) notice(at, `${node.name} (${one.instance}): restarted${node.lastFailure ? `: ${node.lastFailure}` : ""}`, "#/actors", "amber");
    }
  }
  for (const name of before.keys()) {
    if (!instances.some((one) => keyOf(one) === name)) notice(at, `${name}: left the list, nothing heard for 10 s`, "#/actors", "amber");
  }
}

export { flatten };
