// Every metric as a curve, in groups that a search narrows.

const GROUPS = [
  ["Reward and accuracy", /^(reward|accuracy|greedy_accuracy|pass_at|groups_|verdict_|ungraded|redrawn|margin)/],
  ["Loss", /^(loss|.*\/loss)$/],
  ["Responses", /^(response_|truncated|repet|length)/],
  ["Actor", /^actor_/],
  ["Critic", /^critic_/],
  ["Distance between policies", /^(kl|staleness|mismatch|logprob|importance)/],
  ["Speed", /^(tokens_per_s|duration_s|num_tokens|num_sequences|time|mfu)/],
];
const REST = "Others";

function groupOf(name) {
  return (GROUPS.find(([, pattern]) => pattern.test(name)) ?? [REST])[0];
}

/** Whether no run's value of a metric ever changes; such curves come last in their group. */
function isConstant(name) {
  let known = null;
  for (const run of RUNS) {
    for (const kind of Object.keys(run.curves)) {
      for (const value of curve(run, kind, name)?.values ?? []) {
        if (Number.isNaN(value) || value === known) continue;
        if (known !== null) return false;
        known = value;
      }
    }
  }
  return true;
}

const charts = new Set();

onChange((what) => charts.forEach((chart) => chart.update(what)));

function chartOf(name, options) {
  const chart = new CurveChart(name, options);
  charts.add(chart);
  return chart;
}

/** Controls that all curves share; each set of them shows what the others have chosen. */
function curveTools() {
  const output = el("output");
  const slider = el("input", {
    type: "range", min: "0", max: "0.99", step: "0.01", "aria-label": "Smoothing",
    oninput: () => change({ smoothing: Number(slider.value) }),
  });
  const logarithm = el("input", { type: "checkbox", onchange: () => change({ logarithmic: logarithm.checked }) });
  const whole = el("button", { class: "quiet", type: "button", onclick: () => change({ range: null }) }, "All steps");
  const show = () => {
    slider.value = String(state.smoothing);
    output.textContent = state.smoothing.toFixed(2);
    logarithm.checked = state.logarithmic;
    whole.hidden = state.range === null;
  };
  show();
  onChange(show);
  return el("div", { class: "tools" }, labelled("Smoothing", slider), output, labelled("Log scale", logarithm), whole);
}

function curvesPanel() {
  const names = [...metricNames().keys()];
  if (!names.length) return [empty("No step is done yet: there are no curves.")];
  const search = el("input", { type: "search", placeholder: "Find a metric   /", "aria-label": "Find a metric", class: "find" });
  const sections = [...GROUPS.map(([title]) => title), REST].map((title) => curveGroup(title, names)).filter(Boolean);
  const nothing = empty("No metric has this in its name.");
  nothing.hidden = true;
  search.addEventListener("input", () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const counts = sections.map((section) => section.narrow((name) => words.every((word) => name.toLowerCase().includes(word))));
    nothing.hidden = counts.some(Boolean);
  });
  const help = el("p", { class: "help" }, "Drag over a curve to zoom, double-click for all steps, click a name to enlarge. ",
    "Dashed lines with points are evaluations.");
  return [el("div", { class: "tools" }, search, curveTools()), help, ...sections.map((section) => section.element), nothing];
}

/** A group's curves under a heading that folds them away. */
function curveGroup(title, names) {
  const all = names.filter((name) => groupOf(name) === title);
  const own = [...all.filter((name) => !isConstant(name)), ...all.filter(isConstant)];
  if (!own.length) return null;
  const cells = new Map(own.map((name) => [name, chartOf(name).element]));
  const element = el("details", { open: "" },
    el("summary", {}, el("b", {}, title), ` · ${own.length}`),
    el("div", { class: "grid" }, [...cells.values()]));
  const narrow = (accepts) => {
    for (const [name, cell] of cells) cell.hidden = !accepts(name);
    const count = own.filter(accepts).length;
    element.hidden = !count;
    return count;
  };
  return { element, narrow };
}
