// A chart over time. The range before is a thin dashed line; dragging zooms; a double click shows all again.
import { html, useEffect, useRef } from "../vendor/htm-preact-3.1.1.js";
import uPlot from "../vendor/uplot-1.6.32.js";
import { dateTime } from "../format.js";

const compact = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });

// Ticks of the time axis: the day where it changes, hours and minutes else.
function ticks(times) {
  let day = "";
  return times.map((seconds) => {
    const [date, clock] = dateTime(seconds * 1000).split(" ");
    const first = date !== day;
    day = date;
    const minutes = clock.slice(0, 5);
    return first && minutes === "00:00" ? date : first ? `${minutes}\n${date}` : minutes === "00:00" ? date.slice(5) : minutes;
  });
}

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// `series`: [{ label, hue (a CSS variable's name), values, dashed }] over `times`, in seconds since 1970.
export function Chart({ times, series, unit = "", height = 220, format, onZoom, theme }) {
  const box = useRef();
  const key = JSON.stringify([series.map((one) => [one.label, one.hue, one.dashed]), unit, theme]);
  const chart = useRef(null);
  useEffect(() => {
    const show = (_, value) => (value === null || value === undefined ? "–" : `${format(value)}${unit ? ` ${unit}` : ""}`);
    const axis = { stroke: color("--second"), font: "11px system-ui", ticks: { show: false }, grid: { stroke: color("--line"), width: 1 } };
    const options = {
      width: box.current.clientWidth,
      height,
      cursor: { drag: { x: true, y: false }, points: { size: 5 } },
      legend: { live: true },
      scales: { y: { range: (_, least, most) => [0, most > 0 ? most * 1.05 : 1] } },
      axes: [
        { ...axis, grid: { show: false }, space: 70, values: (_, times) => ticks(times) },
        { ...axis, size: 48, space: Math.max(40, height / 4), values: (_, values) => values.map((value) => compact.format(value)) },
      ],
      series: [{ label: "time", value: (_, seconds) => (seconds === null ? "–" : dateTime(seconds * 1000)) }].concat(
        series.map((one) => ({
          label: one.label,
          stroke: color(one.hue),
          width: one.dashed ? 1 : 1.5,
          dash: one.dashed ? [4, 4] : undefined,
          points: { show: times.length < 3 },
          value: show,
          spanGaps: false,
        })),
      ),
      hooks: {
        setSelect: [(plot) => {
          if (plot.select.width > 4 && onZoom) onZoom(plot.posToVal(plot.select.left, "x"), plot.posToVal(plot.select.left + plot.select.width, "x"));
        }],
      },
    };
    chart.current = new uPlot(options, [times, ...series.map((one) => one.values)], box.current);
    const resize = new ResizeObserver(() => chart.current?.setSize({ width: box.current.clientWidth, height }));
    resize.observe(box.current);
    return () => {
      resize.disconnect();
      chart.current.destroy();
      chart.current = null;
    };
  }, [key, height]);
  useEffect(() => {
    chart.current?.setData([times, ...series.map((one) => one.values)]);
  }, [times, series]);
  return html`<div class="chart"><div ref=${box}></div></div>`;
}
