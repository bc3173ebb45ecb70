// Sources and types of event that filters offer: those that the reporter knows.
import { get } from "./api.js";
import { signal } from "./store.js";

export const sources = signal([]);
export const types = signal([]);
export const stages = signal(["top", "bottom"]);

export async function loadCatalog() {
  try {
    const description = await get("openapi.json");
    const parameters = Object.values(description.paths).flatMap((path) => path.get?.parameters ?? []);
    const values = (name) => {
      const all = parameters.filter((one) => one.name === name).flatMap((one) => allowed(one.schema));
      return [...new Set(all)];
    };
    sources.set(values("source").filter((name) => name !== "unknown"));
    types.set(values("eventType").sort());
  } catch {
    setTimeout(loadCatalog, 3000);
  }
}

function allowed(schema) {
  if (!schema) return [];
  return schema.enum ?? schema.items?.enum ?? [schema.oneOf, schema.anyOf, schema.allOf].flatMap((list) => (list ?? []).flatMap(allowed));
}
