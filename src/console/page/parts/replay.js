// Replay of dead letters: a trial that changes nothing says which would pass; then those that pass are put into the log.
import { html, useState } from "../vendor/htm-preact-3.1.1.js";
import { adminToken, post } from "../api.js";
import { number } from "../format.js";
import { AskAdminToken } from "./parts.js";

const WHY = { 403: "Replays are off: ESS_ADMIN_TOKEN is not set at this reporter." };
const PAGE = 1000;

export function Replay({ what, name, onResults }) {
  const [busy, setBusy] = useState("");
  const [trial, setTrial] = useState(null);
  const [done, setDone] = useState(null);
  const [failed, setFailed] = useState(null);
  const ask = async (dryRun) => {
    setBusy(dryRun ? "trial" : "replay");
    setFailed(null);
    setDone(null);
    // A replay takes the letters that have passed the trial: it leaves the others as they are.
    const passing = trial?.letters.filter((one) => one.outcome === "accepted").map((one) => one.id) ?? [];
    const body = dryRun ? { ...what, dryRun } : { ids: passing.slice(0, PAGE), dryRun };
    try {
      const answer = await post("dead-letters/replay", body);
      onResults(answer);
      if (dryRun) setTrial(answer);
      else {
        setTrial(null);
        setDone(answer);
      }
    } catch (error) {
      setFailed({ error, dryRun });
    }
    setBusy("");
  };
  const passes = trial?.accepted ?? 0;
  const told = (answer) => html`${answer.refused ? `, ${number(answer.refused)} refused again` : ""}${answer.more ? ". More letters match: repeat it for them" : ""}.`;
  if (failed?.error.status === 401) {
    return html`<${AskAdminToken} wrong=${Boolean(adminToken.get())} why="A replay needs the admin token." onDone=${() => ask(failed.dryRun)} />`;
  }
  return html`<div class="row replay">
    <button disabled=${Boolean(busy) || what.ids?.length === 0} onClick=${() => ask(true)}>${busy === "trial" ? "Trying…" : html`Try to replay ${name}`}</button>
    ${trial ? html`<button class="main" disabled=${!passes || Boolean(busy)} onClick=${() => ask(false)}>${busy === "replay" ? "Replaying…" : passes ? `Replay ${number(passes)}` : "Nothing to replay"}</button>` : null}
    <span role="status">${failed ? html`<span class="amber">${WHY[failed.error.status] ?? failed.error.message}</span>` : null}
      ${trial ? html`<span>${number(passes)} would pass${told(trial)}</span>` : null}
      ${done ? html`<span>${number(done.accepted)} ${done.accepted === 1 ? "event is" : "events are"} in the log${told(done)}</span>` : null}
      ${!failed && !trial && !done ? html`<span class="second">A trial changes nothing; it says which would pass by the contract of today.</span>` : null}</span></div>`;
}
