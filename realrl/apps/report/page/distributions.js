// How lengths and rewards are distributed, and how that changes over the steps.

const KIND_ORDER = ["train", "pass", "eval"];

function distributionsPanel() {
  const parts = [];
  for (const run of RUNS) {
    const sets = Object.keys(run.distributions).filter((each) => !KIND_ORDER.includes(each));
    for (const kind of [...KIND_ORDER, ...sets].filter((each) => run.distributions[each])) {
      const { length, reward } = run.distributions[kind];
      const cards = [heatCard(`Response length, ${length.unit}`, length), heatCard("Reward", reward)].filter(Boolean);
      if (!cards.length) continue;
      parts.push(el("div", { class: "head" }, runDot(run), el("h2", {}, `${run.name} · ${kindName(kind)}`)),
        el("div", { class: "grid wide" }, cards));
    }
  }
  if (!parts.length) return [empty("No run has written down rollouts.")];
  return [el("p", { class: "help" }, "Each column is a span of steps; the stronger a cell's colour, the larger the share of its rollouts in that range. At the right: the column under the pointer, or all."), ...parts];
}

/** A map of shares by step and range, and the histogram of one column. */
function heatCard(title, data) {
  if (!data.columns.length) return null;
  const counts = unpack(data.counts), rows = data.edges.length - 1, low = data.edges[0], high = data.edges[rows];
  const sums = data.columns.map((_, c) => sum(counts.subarray(c * rows, (c + 1) * rows)));
  const whole = data.edges.slice(1).map((_, r) => data.columns.reduce((total, __, c) => total + counts[c * rows + r], 0));
  const isWhole = Math.abs(low % 1) === 0.5; // each range is one whole number
  let column = null, x = null, y = null;
  const words = (c) => (data.columns[c][0] === data.columns[c][1] ? `step ${data.columns[c][0]}` : `steps ${data.columns[c][0]}–${data.columns[c][1]}`);
  const map = plotCanvas(200, `${title} by step: from ${shown(low)} to ${shown(high)}, ${data.columns.length} columns`, (context, width, height) => {
    x = scale(0, data.columns.length, MARGIN.left, width - MARGIN.right);
    y = scale(low, high, height - MARGIN.bottom, MARGIN.top);
    const places = ticks(0, data.columns.length - 1, Math.min(8, width / 70)).filter((c) => Number.isInteger(c) && c < data.columns.length);
    const levels = ticks(low, high, 4).filter((level) => !isWhole || Number.isInteger(level));
    drawAxes(context, width, height, (c) => x(c + 0.5), y, places, levels, tickText, (c) => String(data.columns[c][0]));
    const heat = themeColour("heat");
    for (let c = 0; c < data.columns.length; c++) {
      for (let r = 0; r < rows; r++) {
        const count = counts[c * rows + r];
        if (!count) continue;
        context.fillStyle = `rgba(${heat}, ${0.1 + 0.9 * Math.sqrt(count / sums[c])})`;
        const top = y(data.edges[r + 1]);
        context.fillRect(x(c), top, x(c + 1) - x(c) - 0.5, Math.max(1, y(data.edges[r]) - top - 0.5));
      }
    }
  });
  const side = plotCanvas(200, `${title}: histogram`, (context, width, height) => {
    const chosen = column === null ? whole : [...counts.subarray(column * rows, (column + 1) * rows)];
    const bars = scale(0, Math.max(...chosen) || 1, 0, width - 4);
    const up = scale(low, high, height - MARGIN.bottom, MARGIN.top);
    context.fillStyle = themeColour("accent");
    chosen.forEach((count, r) => {
      const top = up(data.edges[r + 1]);
      if (count) context.fillRect(0, top, Math.max(1, bars(count)), Math.max(1, up(data.edges[r]) - top - 0.5));
    });
    context.fillStyle = themeColour("faint");
    context.textBaseline = "top";
    context.fillText(column === null ? "all steps" : words(column), 0, height - MARGIN.bottom + 6);
  });
  map.addEventListener("pointermove", (event) => {
    column = Math.min(Math.max(Math.floor(x.invert(event.offsetX)), 0), data.columns.length - 1);
    redraw(side);
    const r = data.edges.findIndex((edge, i) => y.invert(event.offsetY) >= edge && y.invert(event.offsetY) < data.edges[i + 1]);
    if (r < 0) return hideTip();
    const count = counts[column * rows + r];
    return showTip(event, words(column), [[null, isWhole ? shown(data.edges[r] + 0.5) : `${shown(data.edges[r])} to ${shown(data.edges[r + 1])}`, `${count} of ${sums[column]}`, percent(count / (sums[column] || 1))]]);
  });
  map.addEventListener("pointerleave", () => {
    column = null;
    hideTip();
    redraw(side);
  });
  onChange((what) => what === "theme" && [map, side].forEach((each) => inView.has(each) && redraw(each)));
  const without = data.num_left_out ? el("small", {}, `${data.num_left_out.toLocaleString("en-US")} without a number`) : null;
  return el("section", { class: "card" }, el("div", { class: "row" }, el("h3", {}, title), without),
    el("div", { class: "heat" }, el("div", { class: "plot" }, map), el("div", { class: "plot" }, side)));
}

function sum(values) {
  return values.reduce((total, value) => total + value, 0);
}
