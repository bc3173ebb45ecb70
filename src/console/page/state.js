// The state of the system in words: the most important thing that is not well, or that all is well.
import { ago, number } from "./format.js";

export function judge({ connection, flow, fleet, ledger }) {
  if (connection.state === "denied") return { level: "amber", text: "a token is needed" };
  if (connection.state === "away") return { level: "amber", text: `no live figures since ${ago(connection.since)}: ${connection.why}` };
  const missing = ledger?.sources?.reduce((sum, one) => sum + one.missing, 0) ?? 0;
  if (missing > 0) return { level: "red", text: `${number(missing)} events are missing: published, and neither in the log nor stored`, link: "#/" };
  const lame = fleet.instances.find((one) => !one.ready);
  if (lame) return { level: "amber", text: `${lame.service} ${lame.instance} is not ready: ${lame.why ?? "no reason told"}`, link: "#/actors" };
  const behind = flow.sources.find((one) => grows(flow.history, one.source));
  if (behind) return { level: "amber", text: `${behind.source}: the log grows, ${number(behind.inFlight)} events wait for a collector` };
  if (connection.state === "connecting") return { level: "", text: "connecting" };
  return { level: "well", text: "all well" };
}

// True if events of the source have waited in the log all the time of the last 10 s, and ever more of them.
function grows(history, source) {
  const waits = history.slice(-10).map((entry) => entry.sources.find((one) => one.source === source)?.inFlight ?? 0);
  if (waits.length < 10 || waits[0] === 0) return false;
  return Math.min(...waits.slice(5)) > Math.max(...waits.slice(0, 5)) && waits.at(-1) > 10_000;
}
