// Requests to the reporter that served this page. Where it asks for a token, the token is kept for this tab alone.
import { parseExact } from "./exact.js";
import { signal } from "./store.js";

const KEY = "ess-token";
const ADMIN = "ess-admin-token";
export const token = signal(sessionStorage.getItem(KEY) ?? "");
export const denied = signal(false);

export function setToken(value) {
  if (value) sessionStorage.setItem(KEY, value);
  else sessionStorage.removeItem(KEY);
  denied.set(false);
  token.set(value);
}

// Resolves at once, or, after a 401, when another token is given: a loop does not go on asking.
export function allowed() {
  return new Promise((done) => {
    if (!denied.get()) return done();
    const end = denied.subscribe((value) => {
      if (value) return;
      end();
      done();
    });
  });
}

// The admin token is another one: it is asked for where an action needs it.
export const adminToken = signal(sessionStorage.getItem(ADMIN) ?? "");

export function setAdminToken(value) {
  if (value) sessionStorage.setItem(ADMIN, value);
  else sessionStorage.removeItem(ADMIN);
  adminToken.set(value);
}

export class Refused extends Error {
  constructor(status, problem) {
    super(problem?.detail || problem?.title || `the reporter answered ${status}`);
    this.status = status;
    this.problem = problem;
  }
}

function headers(more) {
  return token.get() ? { ...more, Authorization: `Bearer ${token.get()}` } : { ...more };
}

async function checked(answer, reading = true) {
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => null);
  if (answer.status === 401 && reading) denied.set(true);
  throw new Refused(answer.status, problem);
}

async function send(path, options) {
  try {
    return await fetch(path, options);
  } catch {
    throw new Error("the reporter does not answer");
  }
}

export async function get(path) {
  return (await checked(await send(path, { headers: headers({ Accept: "application/json" }) }))).json();
}

export async function getText(path, accept) {
  return (await checked(await send(path, { headers: headers({ Accept: accept }) }))).text();
}

export async function post(path, body) {
  const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  if (adminToken.get()) options.headers.Authorization = `Bearer ${adminToken.get()}`;
  const answer = await checked(await send(path, options), false);
  if (answer.status === 202 && !answer.headers.get("content-type")) return null;
  return answer.headers.get("content-type")?.includes("json") ? answer.json() : null;
}

// Reads Server-Sent Events until the answer ends or `signal` aborts. EventSource cannot send a token.
export async function listen(path, abort, on) {
  const answer = await checked(await send(path, { headers: headers({ Accept: "text/event-stream" }), signal: abort }));
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffer += value;
    let end;
    while ((end = buffer.indexOf("\n\n")) >= 0) {
      const lines = buffer.slice(0, end).split("\n");
      buffer = buffer.slice(end + 2);
      const field = (name) => lines.filter((line) => line.startsWith(`${name}:`)).map((line) => line.slice(name.length + 1).trimStart());
      const data = field("data").join("\n");
      const event = field("event")[0] ?? "message";
      // A sample shows an event as it was sent.
      const value = event === "sample" ? parseExact(data) : JSON.parse(data);
      if (value) on(event, value);
    }
  }
}

export function query(values) {
  const pairs = Object.entries(values).filter(([, value]) => value !== undefined && value !== null && value !== "");
  // Colons are legal in a query, and times are easier to read with them.
  const text = new URLSearchParams(pairs).toString().replaceAll("%3A", ":");
  return text ? `?${text}` : "";
}
