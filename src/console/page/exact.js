// JSON whose numbers keep their text: an id beyond 2^53 and 1.10 are shown as they were sent.
class Exact {
  constructor(text) {
    this.text = text;
  }
  toString() {
    return this.text;
  }
  toJSON() {
    return this.text;
  }
}

// A browser that does not tell the text of numbers gives them as numbers.
const keep = (_, value, context) =>
  typeof value === "number" && context?.source !== undefined && String(value) !== context.source ? new Exact(context.source) : value;

// The value of a JSON text; undefined if it is no JSON.
export function parseExact(text) {
  try {
    return JSON.parse(text, keep);
  } catch {
    return undefined;
  }
}

export const isExact = (value) => value instanceof Exact;
