// Where the time of each step goes: phases, stacked, in seconds.

const MOST_PHASES = 16;
const LEAST_SHARE = 0.001; // of a phase that the keys name

/** A run's phases, those of most seconds first; small ones beyond the colours are added up. */
const phasesOf = memoised((run) => {
  const steps = unpack(run.phases.steps);
  const all = Object.entries(run.phases.series).map(([name, packed]) => {
    const values = unpack(packed).map((value) => (Number.isNaN(value) ? 0 : value));
    return { name, values, total: values.reduce((sum, value) => sum + value, 0) };
  });
  all.sort((a, b) => b.total - a.total);
  if (all.length > MOST_PHASES + 1) {
    const rest = all.splice(MOST_PHASES);
    const values = rest[0].values.map((_, i) => rest.reduce((sum, phase) => sum + phase.values[i], 0));
    all.push({ name: `${rest.length} others`, values, total: rest.reduce((sum, phase) => sum + phase.total, 0) });
  }
  return { steps, phases: all };
});

/** Names and colours of phases, with their share of `whole`. */
function phaseKeys(phases, whole = 1) {
  const large = phases.filter(({ total }) => total >= whole * LEAST_SHARE);
  return el("div", { class: "keys" }, large.map(({ name, total }) => el("span", {},
    el("i", { style: { background: phaseColour(name) } }), `${name} ${percent(total / (whole || 1))}`)));
}

function phasesCard(run) {
  const { steps, phases } = phasesOf(run);
  if (!steps.length) return empty(`${run.name}: no step is done yet.`);
  const whole = phases.reduce((sum, phase) => sum + phase.total, 0);
  let x = null, columns = [];
  const canvas = plotCanvas(230, `Seconds of each phase by step: ${phases.map((p) => `${p.name} ${seconds(p.total)}`).join(", ")}`, (context, width, height) => {
    const first = steps[0], last = steps[steps.length - 1] + run.phases.each;
    x = scale(first, last, MARGIN.left, width - MARGIN.right);
    columns = stacked(steps, phases, Math.floor((width - MARGIN.left - MARGIN.right) / 3));
    const high = Math.max(...columns.map((column) => column.sums[column.sums.length - 1])) || 1;
    const y = scale(0, high * 1.05, height - MARGIN.bottom, MARGIN.top);
    drawAxes(context, width, height, x, y, ticks(first, last, width / 62).filter(Number.isInteger), ticks(0, high, 4), (v) => `${tickText(v)} s`);
    for (const column of columns) {
      const left = Math.round(x(column.first)), right = Math.round(x(column.last)), gap = right - left > 4 ? 1 : 0;
      let low = 0;
      column.sums.forEach((sum, i) => {
        context.fillStyle = phaseColour(phases[i].name);
        context.fillRect(left, y(sum), Math.max(1, right - left - gap), y(low) - y(sum));
        low = sum;
      });
    }
  });
  canvas.addEventListener("pointermove", (event) => {
    const step = x.invert(event.offsetX);
    const column = columns.find((each) => step >= each.first && step < each.last);
    if (!column) return hideTip();
    const rows = phases.map(({ name }, i) => [phaseColour(name), name, seconds(column.sums[i] - (column.sums[i - 1] ?? 0))]);
    const title = column.last - column.first > 1 ? `steps ${column.first}–${column.last - 1}, mean` : `step ${column.first}`;
    return showTip(event, title, [...rows.filter((row) => row[2] !== "0 µs"), [null, "all", seconds(column.sums[column.sums.length - 1])]]);
  });
  canvas.addEventListener("pointerleave", hideTip);
  onChange((what) => what === "theme" && inView.has(canvas) && redraw(canvas));
  return el("section", { class: "card" }, el("div", { class: "head" }, runDot(run), el("h2", {}, run.name)),
    el("div", { class: "plot" }, canvas), phaseKeys(phases, whole));
}

/** Means over at most `most` spans of steps, each phase on top of those before it. */
function stacked(steps, phases, most) {
  const size = Math.max(1, Math.ceil(steps.length / Math.max(1, most)));
  const columns = [];
  for (let begin = 0; begin < steps.length; begin += size) {
    const end = Math.min(begin + size, steps.length);
    const sums = [];
    let sum = 0;
    for (const { values } of phases) {
      for (let i = begin; i < end; i++) sum += values[i] / (end - begin);
      sums.push(sum);
    }
    columns.push({ first: steps[begin], last: end < steps.length ? steps[end] : steps[end - 1] + 1, sums });
  }
  return columns;
}

function timePanel() {
  const parts = [el("h2", {}, "Phases by step")];
  parts.push(el("div", { class: "grid wide" }, RUNS.map(phasesCard)));
  const timed = RUNS.filter((run) => run.timeline);
  if (timed.length) {
    parts.push(el("h2", {}, "Ranks"), el("div", { class: "grid wide" }, timed.map(busyCard)));
    parts.push(el("h2", {}, "Timeline by rank"), timelineHelp(), ...timed.map(timelineCard));
  }
  return parts;
}
