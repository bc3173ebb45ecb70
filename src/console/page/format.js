// Figures and times as people read them.
const grouped = new Intl.NumberFormat("en-US");
const oneDecimal = new Intl.NumberFormat("en-US", { maximumFractionDigits: 1, minimumFractionDigits: 1 });

export const number = (value) => (value === null || value === undefined ? "–" : grouped.format(Math.round(value)));

// A rate: one decimal below ten, so that a slow source does not read as none.
export function rate(value) {
  if (value === null || value === undefined) return "–";
  return value > 0 && value < 10 ? oneDecimal.format(value) : grouped.format(Math.round(value));
}

export function money(text) {
  const [whole, part] = String(text).split(".");
  const sign = whole.startsWith("-") ? "-" : "";
  return sign + whole.replace("-", "").replace(/\B(?=(\d{3})+$)/g, ",") + (part ? `.${part}` : "");
}

export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "–";
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${(seconds * 1000).toPrecision(seconds < 0.1 ? 2 : 3)} ms`;
  if (seconds < 120) return `${seconds.toFixed(1)} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

export function bytes(value) {
  if (value === null || value === undefined) return "–";
  const units = ["B", "kB", "MB", "GB"];
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${value < 10 && unit ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

const two = (value) => String(value).padStart(2, "0");

export function clock(at) {
  const time = new Date(at);
  return `${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`;
}

export function dateTime(at) {
  const time = new Date(at);
  return `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())} ${clock(at)}`;
}

// Relative up to an hour, absolute after it.
export function ago(at, now = Date.now()) {
  const seconds = Math.max(0, (now - new Date(at).getTime()) / 1000);
  if (seconds < 5) return "just now";
  if (seconds < 60) return `${Math.round(seconds)} s ago`;
  return seconds < 3600 ? `${Math.round(seconds / 60)} min ago` : dateTime(at);
}

export function zone() {
  const minutes = -new Date().getTimezoneOffset();
  if (!minutes) return "UTC";
  const rest = Math.abs(minutes) % 60;
  return `UTC${minutes < 0 ? "−" : "+"}${Math.floor(Math.abs(minutes) / 60)}${rest ? `:${two(rest)}` : ""}`;
}

export const utc = (at) => new Date(at).toISOString();

// An instant as an input of date and time in the viewer's zone has it.
export function toLocal(text) {
  const time = new Date(text);
  return new Date(time - time.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
}
