// The three reports with all filters, as charts and tables.
import { html, useEffect, useMemo, useState } from "../vendor/htm-preact-3.1.1.js";
import { get, getText, query, token } from "../api.js";
import { money, number, toLocal, zone } from "../format.js";
import { Chart } from "../parts/chart.js";
import { Away, Choice, Copy, Loading, Notice, Source } from "../parts/parts.js";
import { usePolling, useSignal } from "../store.js";
import { hue, learnTypes, sources, stages, types } from "../catalog.js";
import { theme } from "../theme.js";

const RANGES = { "1h": [3600, "last hour", "minute"], "6h": [21600, "last 6 hours", "minute"], "24h": [86400, "last 24 hours", "hour"], "7d": [604800, "last 7 days", "hour"], "30d": [2592000, "last 30 days", "day"], all: [null, "all", "day"] };
const WIDTH = { minute: 60, hour: 3600, day: 86400 };
const SHOWN = 8;

const iso = (seconds) => new Date(seconds * 1000).toISOString().replace(/\.\d+Z$/, "Z");

// The range that is asked for, and the one of equal length before it.
function rangeOf(params) {
  if (params.from || params.to) {
    const from = params.from ? Date.parse(params.from) / 1000 : null;
    const to = params.to ? Date.parse(params.to) / 1000 : Math.ceil(Date.now() / 60000) * 60;
    const length = from === null ? null : to - from;
    const interval = length === null || length > 14 * 86400 ? "day" : length > 12 * 3600 ? "hour" : "minute";
    return { from, to, length, interval };
  }
  const [length, , interval] = RANGES[params.range] ?? RANGES["1h"];
  const to = Math.ceil(Date.now() / 60000) * 60;
  return { from: length === null ? null : to - length, to: length === null ? null : to, length, interval };
}

// Puts buckets of a series on one axis of times; a bucket without events is zero.
function onAxis(buckets, width, from, to, keyOf, valueOf) {
  if (!buckets.length && from === null) return { times: [], lines: [] };
  const at = (bucket) => Date.parse(bucket.at) / 1000;
  const first = from === null ? Math.min(...buckets.map(at)) : Math.floor(from / width) * width;
  const end = to === null ? Math.max(...buckets.map(at)) + width : to;
  const count = Math.min(5000, Math.max(1, Math.ceil((end - first) / width)));
  const times = Array.from({ length: count }, (_, index) => first + index * width);
  const lines = new Map();
  for (const bucket of buckets) {
    const key = keyOf(bucket);
    if (!lines.has(key)) lines.set(key, new Array(count).fill(0));
    const index = Math.round((at(bucket) - first) / width);
    if (index >= 0 && index < count) lines.get(key)[index] += valueOf(bucket);
  }
  const total = (values) => values.reduce((sum, value) => sum + value, 0);
  return { times, lines: [...lines].sort((left, right) => total(right[1]) - total(left[1]) || left[0].localeCompare(right[0])) };
}

// A line for each source; of one source, a line for each type.
const lineOf = (filters) => (bucket) => (filters.source ? bucket.eventType : bucket.source);

function chartOf(now, before, bySource) {
  const series = now.lines.slice(0, SHOWN).map(([key, values], index) => ({ label: key, hue: bySource ? hue(key) : `--hue-${index}`, values }));
  const rest = now.lines.slice(SHOWN);
  if (rest.length) series.push({ label: `${rest.length} more`, hue: "--second", values: now.times.map((_, at) => rest.reduce((sum, [, values]) => sum + values[at], 0)) });
  if (before) {
    const sum = now.times.map((_, at) => before.lines.reduce((all, [, values]) => all + (values[at] ?? 0), 0));
    series.push({ label: "range before, all", hue: "--second", values: sum, dashed: true });
  }
  return series;
}

function Bars({ rows, head, format = number }) {
  const most = Math.max(...rows.map((row) => row.value)) || 1;
  const side = (at) => (at === head.length - 1 || rows[0]?.numbers?.includes(at) ? "number" : "");
  return html`<div class="scroll"><table><thead><tr>${head.map((text, at) => html`<th class=${side(at)}>${text}</th>`)}<th></th></tr></thead>
    <tbody>${rows.map((row) => html`<tr key=${row.key}>${row.cells.map((cell, at) => html`<td class=${side(at) || "wrap"}>${cell}</td>`)}<td class="number">${row.shown ?? format(row.value)}</td><td class="bar"><div class="track"><div style=${{ width: `${(row.value / most) * 100}%`, background: row.source ? `var(${hue(row.source)})` : undefined }}></div></div></td></tr>`)}</tbody></table></div>`;
}

function Request({ path }) {
  const [failed, setFailed] = useState(null);
  const url = new URL(path, location.href).href;
  const curl = `curl ${token.get() ? '-H "Authorization: Bearer $ESS_REPORTER_TOKEN" ' : ""}'${url}'`;
  const save = async () => {
    try {
      const text = await getText(path, "text/csv");
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
      link.download = `${path.split("?")[0].replace("/", "-")}.csv`;
      link.click();
      URL.revokeObjectURL(link.href);
      setFailed(null);
    } catch (error) {
      setFailed(error.message);
    }
  };
  return html`<p class="row second"><code>GET /${path}</code><${Copy} text=${curl} label="Copy as curl" /><button class="link" onClick=${save}>CSV</button>${failed ? html`<span class="amber">${failed}</span>` : null}</p>`;
}

function Events({ filters, range, zoom, shade }) {
  const ask = (from, to) => `reports/events${query({ ...filters, campaignId: undefined, currency: undefined, from: from === null ? undefined : iso(from), to: to === null ? undefined : iso(to), interval: range.interval })}`;
  const path = ask(range.from, range.to);
  const earlier = range.length ? ask(range.from - range.length, range.from) : null;
  const state = usePolling(async () => ({ now: await get(path), before: earlier ? await get(earlier) : null }), 10, [path]);
  const data = state.value;
  useEffect(() => learnTypes((data?.now.events ?? []).map((one) => one.eventType)), [data]);
  const shown = useMemo(() => {
    if (!data) return null;
    const key = lineOf(filters);
    const now = onAxis(data.now.series ?? [], WIDTH[range.interval], range.from, range.to, key, (bucket) => bucket.count);
    const before = data.before ? onAxis(data.before.series ?? [], WIDTH[range.interval], range.from - range.length, range.from, key, (bucket) => bucket.count) : null;
    return { times: now.times, series: chartOf(now, before, !filters.source) };
  }, [data, path]);
  const rows = (data?.now.events ?? []).map((one) => ({ key: `${one.source} ${one.eventType}`, source: one.source, value: one.count, cells: [html`<${Source} name=${one.source} />`, one.funnelStage, one.eventType] }));
  return html`<section><h2>Events</h2>
    <${Away} error=${state.error} since=${state.since} />
    ${data ? html`<p>${number(data.now.totalEvents)} events${data.before ? html`<span class="second">, ${number(data.before.totalEvents)} in the range before</span>` : null}</p>` : html`<${Loading} />`}
    ${shown?.times.length && data.now.totalEvents ? html`<${Chart} ...${shown} unit="events" format=${number} onZoom=${zoom} theme=${shade} />` : data ? html`<${Notice} title="No events in this range"><p>Take a longer range, or fewer filters.</p><//>` : null}
    ${rows.length ? html`<h2>Funnel by type</h2><${Bars} rows=${[...rows].sort((a, b) => (a.cells[1] === b.cells[1] ? b.value - a.value : a.cells[1] === "top" ? -1 : 1))} head=${["Source", "Stage", "Type", "Events"]} />` : null}
    <${Request} path=${path} /></section>`;
}

function Revenue({ filters, range, zoom, shade, choose }) {
  const ask = (from, to, more) => `reports/revenue${query({ source: filters.source, campaignId: filters.campaignId, currency: filters.currency, from: from === null ? undefined : iso(from), to: to === null ? undefined : iso(to), interval: range.interval, ...more })}`;
  const path = ask(range.from, range.to, filters.campaignId ? {} : { groupBy: "campaign", limit: 20 });
  const earlier = range.length ? ask(range.from - range.length, range.from, {}) : null;
  const state = usePolling(async () => ({ now: await get(path), before: earlier ? await get(earlier) : null }), 10, [path]);
  const data = state.value;
  const shown = useMemo(() => {
    if (!data) return null;
    const key = lineOf(filters);
    const value = (bucket) => Number(bucket.totalRevenue);
    const now = onAxis(data.now.series ?? [], WIDTH[range.interval], range.from, range.to, key, value);
    const before = data.before ? onAxis(data.before.series ?? [], WIDTH[range.interval], range.from - range.length, range.from, key, value) : null;
    return { times: now.times, series: chartOf(now, before, !filters.source) };
  }, [data, path]);
  const unit = data?.now.currency ?? "";
  const two = (amount) => money(amount.toFixed(2));
  const others = data?.now.otherCurrencies ?? [];
  const currencies = [...new Set([unit, ...others.map((one) => one.currency)])].filter((code) => code).sort();
  const campaigns = (data?.now.campaigns ?? []).map((one) => ({ key: `${one.source} ${one.campaignId}`, source: one.source, numbers: [2], value: Number(one.totalRevenue), shown: money(one.totalRevenue), cells: [html`<${Source} name=${one.source} />`, one.campaignId, number(one.transactions)] }));
  return html`<section><h2>Revenue</h2>
    <${Away} error=${state.error} since=${state.since} />
    ${data ? html`<p>${money(data.now.totalRevenue)} ${unit} in ${number(data.now.transactions)} transactions, ${money(data.now.averageOrderValue)} on average${data.before ? html`<span class="second">; ${money(data.before.totalRevenue)} in the range before</span>` : null}</p>` : html`<${Loading} />`}
    ${currencies.length > 1 || filters.currency ? html`<p class="row"><label>Currency <select value=${unit} onChange=${choose}>${currencies.map((code) => html`<option value=${code}>${code}</option>`)}</select></label>${others.length ? html`<span class="second">Also earned, not added: ${others.map((one) => `${money(one.totalRevenue)} ${one.currency}`).join(", ")}</span>` : null}</p>` : null}
    ${shown?.times.length && data.now.transactions ? html`<${Chart} ...${shown} unit=${unit} format=${two} onZoom=${zoom} theme=${shade} />` : data ? html`<${Notice} title="No revenue in this range"><p>Revenue comes from purchases that tell an amount.</p><//>` : null}
    ${campaigns.length ? html`<h2>Campaigns, the highest first</h2><${Bars} rows=${campaigns} head=${["Source", "Campaign", "Transactions", `Revenue, ${unit}`]} />` : null}
    <${Request} path=${path} /></section>`;
}

const TITLES = { ageGroups: "Age", genders: "Gender", countries: "Countries", cities: "Cities", devices: "Devices", ranges: "Followers", browsers: "Browsers" };

function Breakdown({ name, list, source }) {
  const rows = list.slice(0, 12).map((one, at) => {
    const words = Object.entries(one).filter(([key]) => key !== "users").map(([, value]) => value);
    return { key: `${words.join(" ")} ${at}`, source, value: one.users, cells: [words.reverse().join(", ")] };
  });
  return html`<section><h2>${TITLES[name] ?? name}</h2><${Bars} rows=${rows} head=${["", "Users"]} /></section>`;
}

function Demographics({ filters, range }) {
  const path = `reports/demographics${query({ source: filters.source, from: range.from === null ? undefined : iso(range.from), to: range.to === null ? undefined : iso(range.to), limit: 50 })}`;
  const state = usePolling(() => get(path), 15, [path]);
  const data = state.value;
  const members = data ? Object.entries(data).filter(([, value]) => value && typeof value === "object" && "users" in value) : [];
  return html`<section><h2>Demographics</h2>
    <${Away} error=${state.error} since=${state.since} />
    ${!data && !state.error ? html`<${Loading} />` : null}
    ${members.map(([name, of]) => {
      const lists = Object.entries(of).concat(Object.entries(of.followers ?? {})).filter(([, value]) => Array.isArray(value) && value.length);
      const means = [["averageWatchTime", "s watched on average"], ["averagePercentageWatched", "% watched on average"]].filter(([key]) => of[key] !== null && of[key] !== undefined);
      return html`<div class="box" key=${name}><p><${Source} name=${name} />: ${number(of.users)} users in ${number(of.events)} events${data.usersEstimated ? html`<span class="second"> (within 2 %)</span>` : null}${means.map(([key, text]) => html`<span class="second">; ${of[key].toFixed(1)} ${text}</span>`)}</p>
        ${of.users ? html`<div class="columns breakdowns">${lists.map(([key, list]) => html`<${Breakdown} name=${key} list=${list} source=${name} key=${key} />`)}</div>` : html`<p class="second">Nobody in this range.</p>`}</div>`;
    })}
    <${Request} path=${path} /></section>`;
}

export function Reports({ params, setParams }) {
  const names = useSignal(sources);
  const kinds = useSignal(types);
  const levels = useSignal(stages);
  const shade = useSignal(theme);
  const minute = Math.floor(Date.now() / 60000);
  const range = useMemo(() => rangeOf(params), [params.range, params.from, params.to, minute]);
  const filters = { source: params.source, funnelStage: params.funnelStage, eventType: params.eventType, campaignId: params.campaignId, currency: params.currency };
  const choose = (name) => (event) => setParams({ ...params, [name]: event.target.value });
  const zoom = (from, to) => setParams({ ...params, range: undefined, from: iso(Math.floor(from / 60) * 60), to: iso(Math.ceil(to / 60) * 60) });
  const instant = (name) => (event) => setParams({ ...params, range: undefined, [name]: event.target.value ? new Date(event.target.value).toISOString() : undefined });
  const custom = params.from || params.to;
  return html`
    <div class="row">
      <label>Range <select value=${custom ? "" : params.range ?? "1h"} onChange=${(event) => setParams({ ...params, range: event.target.value, from: undefined, to: undefined })}>${custom ? html`<option value="">from and to</option>` : null}${Object.entries(RANGES).map(([key, [, text]]) => html`<option value=${key}>${text}</option>`)}</select></label>
      <label>From <input type="datetime-local" value=${params.from ? toLocal(params.from) : ""} onChange=${instant("from")} /></label>
      <label>To <input type="datetime-local" value=${params.to ? toLocal(params.to) : ""} onChange=${instant("to")} /></label><span class="second">${zone()}</span>
      <${Choice} label="Source" value=${params.source} values=${names} onChange=${choose("source")} />
      <${Choice} label="Stage" value=${params.funnelStage} values=${levels} onChange=${choose("funnelStage")} />
      <${Choice} label="Type" value=${params.eventType} values=${kinds} onChange=${choose("eventType")} />
      <label>Campaign <input type="search" data-search value=${params.campaignId ?? ""} onChange=${choose("campaignId")} /></label>
    </div>
    <div class="columns wide">
      <${Events} filters=${filters} range=${range} zoom=${zoom} shade=${shade} />
      <${Revenue} filters=${filters} range=${range} zoom=${zoom} shade=${shade} choose=${choose("currency")} />
    </div>
    <${Demographics} filters=${filters} range=${range} />`;
}
