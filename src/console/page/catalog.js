// Sources and types of event that filters offer: those that the reporter knows.
import { allowed as mayAsk, get } from "./api.js";
import { signal } from "./store.js";

export const sources = signal([]);
export const types = signal([]);
export const stages = signal([]);
export const reasons = signal([]);

export async function loadCatalog() {
  try {
    const description = await get("openapi.json");
    const parameters = Object.values(description.paths).flatMap((path) => path.get?.parameters ?? []);
    const values = (name) => {
      const all = parameters.filter((one) => one.name === name).flatMap((one) => allowed(one.schema));
      return [...new Set(all)];
    };
    const before = sources.get();
    sources.set(values("source").filter((name) => name !== "unknown"));
    learnSources(before);
    types.set(values("eventType").sort());
    stages.set(values("funnelStage"));
    reasons.set(values("reason"));
  } catch {
    setTimeout(() => mayAsk().then(loadCatalog), 3000);
  }
}

function allowed(schema) {
  if (!schema) return [];
  return schema.enum ?? schema.items?.enum ?? [schema.oneOf, schema.anyOf, schema.allOf].flatMap((list) => (list ?? []).flatMap(allowed));
}

// Adds what a figure or a report names and the description did not: a source may come while the reporter runs.
const learn = (list) => (names) => {
  const fresh = [...new Set(names)].filter((name) => name && name !== "unknown" && !list.get().includes(name));
  if (fresh.length) list.set(list.get().concat(fresh));
};
export const learnSources = learn(sources);
export const learnTypes = learn(types);

const HUES = 8;

// The hue of a source by its place in the catalogue, so that it is the same on every page; of one that is not there, by
// its name.
export function hue(name) {
  const place = sources.get().indexOf(name);
  const index = place >= 0 ? place : [...String(name)].reduce((sum, letter) => (sum * 31 + letter.codePointAt(0)) >>> 0, 7);
  return `--hue-${index % HUES}`;
}
