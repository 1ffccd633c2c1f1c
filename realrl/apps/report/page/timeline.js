// What each rank did when, to zoom and pan; and how busy it was over the whole run.

const LANE = 22;

const eventsOf = memoised((run) => {
  const { start, duration, rank, name, step, evaluates } = run.timeline;
  const events = {
    start: unpack(start), duration: unpack(duration), rank: unpack(rank), name: unpack(name), step: unpack(step),
    evaluates: unpack(evaluates),
  };
  events.ranks = [...new Set(events.rank)].sort((a, b) => a - b);
  events.end = events.start.reduce((most, begin, i) => Math.max(most, begin + events.duration[i]), 0);
  events.steps = [...stepSpans(events)].sort((a, b) => a[1].begin - b[1].begin);
  return events;
});

/** When each step, and each evaluation, began and ended: `[words, {begin, end}]`. */
function stepSpans({ start, duration, step, evaluates }) {
  const spans = new Map();
  for (let i = 0; i < start.length; i++) {
    const words = `${evaluates[i] ? "evaluation at " : ""}step ${step[i]}`;
    const span = spans.get(words) ?? { begin: Infinity, end: 0 };
    span.begin = Math.min(span.begin, start[i]);
    span.end = Math.max(span.end, start[i] + duration[i]);
    spans.set(words, span);
  }
  return spans;
}

/** Each rank's seconds by phase, as a share of the time from its first start to its last end. */
function busyCard(run) {
  const { busy, names } = run.timeline;
  const totals = new Map();
  for (const { seconds: spent } of busy) for (const [name, time] of spent) totals.set(name, (totals.get(name) ?? 0) + time);
  const order = [...totals.keys()].sort((a, b) => totals.get(b) - totals.get(a));
  const merged = mergedPhases(busy, names, order);
  let x = null, height = 0;
  const canvas = plotCanvas(busy.length * LANE + MARGIN.bottom, `Share of each rank's time by phase: ${busy.map(({ rank }, i) => `rank ${rank} idle ${percent(merged[i].idle)}`).join(", ")}`, (context, width, whole) => {
    height = whole;
    x = scale(0, 1, MARGIN.left, width - MARGIN.right);
    drawAxes(context, width, height, x, () => 0, [0, 0.25, 0.5, 0.75, 1], [], tickText, percent);
    merged.forEach(({ parts }, lane) => {
      context.fillStyle = themeColour("grid");
      context.fillRect(x(0), lane * LANE + 3, x(1) - x(0), LANE - 6);
      for (const { name, from, to } of parts) {
        context.fillStyle = phaseColour(name);
        context.fillRect(x(from), lane * LANE + 3, x(to) - x(from), LANE - 6);
      }
      drawRank(context, busy[lane].rank, lane);
    });
  });
  canvas.addEventListener("pointermove", (event) => {
    const lane = Math.floor(event.offsetY / LANE);
    if (!merged[lane]) return hideTip();
    const rows = merged[lane].parts.map(({ name, from, to }) => [phaseColour(name), name, percent(to - from)]);
    return showTip(event, `rank ${busy[lane].rank} · ${seconds(busy[lane].whole_s)}`, [...rows, [null, "idle", percent(merged[lane].idle)]]);
  });
  canvas.addEventListener("pointerleave", hideTip);
  onChange((what) => what === "theme" && inView.has(canvas) && redraw(canvas));
  return el("section", { class: "card" }, el("div", { class: "row" },
    el("div", { class: "head" }, runDot(run), el("h2", {}, run.name)), el("small", {}, "share of the time, over the whole run")),
    el("div", { class: "plot", style: { marginTop: "8px" } }, canvas), phaseKeys(totalsOf(merged)));
}

/** By rank: phases one after the other from 0 to 1, those of one colour together, and what is left. */
function mergedPhases(busy, names, order) {
  return busy.map(({ whole_s: whole, seconds: spent }) => {
    const times = new Map(spent);
    const byName = new Map();
    for (const name of order) {
      const base = basePhase(names[name]);
      byName.set(base, (byName.get(base) ?? 0) + (times.get(name) ?? 0));
    }
    let at = 0;
    const parts = [...byName].filter(([, time]) => time).map(([name, time]) => {
      const from = at;
      at = Math.min(1, at + time / (whole || 1));
      return { name, from, to: at };
    });
    return { parts, idle: 1 - at };
  });
}

/** Phases of all ranks, with their mean share. */
function totalsOf(merged) {
  const totals = new Map();
  for (const { parts } of merged) for (const { name, from, to } of parts) totals.set(name, (totals.get(name) ?? 0) + (to - from) / merged.length);
  return [...totals].map(([name, total]) => ({ name, total }));
}

function drawRank(context, rank, lane) {
  context.fillStyle = themeColour("soft");
  context.textAlign = "right";
  context.textBaseline = "middle";
  context.fillText(`rank ${rank}`, MARGIN.left - 6, lane * LANE + LANE / 2);
}

class TimelineView {
  constructor(run) {
    this.run = run;
    this.events = eventsOf(run);
    this.window = [...this.spanOf(this.events.steps[0])];
    this.where = el("output");
    const height = this.events.ranks.length * LANE + MARGIN.bottom;
    this.canvas = plotCanvas(height, `Timeline of ${run.name}; arrows pan, plus and minus zoom, n and p go to the next and the previous step`, (...all) => this.draw(...all));
    this.listen();
    onChange((what) => what === "theme" && inView.has(this.canvas) && redraw(this.canvas));
    this.element = el("section", { class: "card" },
      el("div", { class: "row" },
        el("div", { class: "head" }, runDot(run), el("h2", {}, run.name)),
        el("div", { class: "tools" }, this.stepChoice(), this.where)),
      el("div", { class: "plot", style: { marginTop: "8px" } }, this.canvas), this.keys(), this.part());
  }

  spanOf([, { begin, end }]) {
    const air = (end - begin) * 0.02 || 0.5;
    return [begin - air, end + air];
  }

  stepChoice() {
    const { steps } = this.events;
    const go = (index) => this.show(this.spanOf(steps[Math.min(Math.max(index, 0), steps.length - 1)]));
    this.choice = select(steps.map(([words], i) => [String(i), words]), "0", (value) => go(Number(value)));
    this.choice.setAttribute("aria-label", "Step");
    const button = (text, label, by) => el("button", {
      class: "quiet", type: "button", "aria-label": label, onclick: () => this.go(by),
    }, text);
    const all = el("button", { class: "quiet", type: "button", onclick: () => this.show([0, this.events.end]) }, "All");
    return el("div", { class: "tools" }, button("‹", "Previous step", -1), this.choice, button("›", "Next step", 1), all);
  }

  go(by) {
    const { steps } = this.events;
    const next = Math.min(Math.max(Number(this.choice.value) + by, 0), steps.length - 1);
    this.choice.value = String(next);
    this.show(this.spanOf(steps[next]));
  }

  keys() {
    const names = [...new Set([...this.events.name].map((i) => this.run.timeline.names[i]))];
    const bases = [...new Set(names.map(basePhase))];
    return el("div", { class: "keys" }, bases.map((name) => el("span", {}, el("i", { style: { background: phaseColour(name) } }), name)));
  }

  /** Says that steps are left out, where some are. */
  part() {
    const { num_events: all, num_steps: steps } = this.run.timeline;
    const here = new Set(this.events.step).size;
    return this.events.start.length === all ? null
      : el("p", { class: "help" }, `Here are ${here.toLocaleString("en-US")} of ${steps.toLocaleString("en-US")} steps: the first, the last, the slowest, and others between.`);
  }

  show(range) {
    this.window = range;
    redraw(this.canvas);
  }

  draw(context, width, height) {
    const [from, to] = this.window, { events } = this;
    this.x = scale(from, to, MARGIN.left, width - MARGIN.right);
    const texts = ticks(from, to, width / 90);
    const digits = Math.max(0, -Math.floor(Math.log10(texts[1] - texts[0]) + 1e-9));
    drawAxes(context, width, height, this.x, () => 0, texts, [], tickText, (value) => `${value.toFixed(digits)} s`);
    events.ranks.forEach((rank, lane) => {
      context.fillStyle = themeColour("grid");
      context.fillRect(MARGIN.left, lane * LANE + 3, width - MARGIN.left - MARGIN.right, LANE - 6);
      drawRank(context, rank, lane);
    });
    context.save();
    context.beginPath();
    context.rect(MARGIN.left, 0, width - MARGIN.left - MARGIN.right, height);
    context.clip();
    this.drawEvents(context);
    context.restore();
    this.where.textContent = seconds(to - from);
  }

  drawEvents(context) {
    const { start, duration, rank, name, ranks } = this.events, { names } = this.run.timeline;
    const lanes = new Map(ranks.map((each, lane) => [each, lane]));
    const colours = names.map(phaseColour);
    const [from, to] = this.window;
    context.textAlign = "left";
    context.textBaseline = "middle";
    for (let i = 0; i < start.length; i++) {
      if (start[i] > to || start[i] + duration[i] < from) continue;
      const left = Math.max(this.x(start[i]), MARGIN.left), top = lanes.get(rank[i]) * LANE + 3;
      const wide = Math.max(1, this.x(start[i] + duration[i]) - left);
      context.fillStyle = colours[name[i]];
      context.fillRect(left, top, wide - (wide > 3 ? 0.6 : 0), LANE - 6);
      if (wide > 50) {
        context.fillStyle = "#ffffff";
        context.fillText(fitted(context, names[name[i]], wide - 8), left + 4, top + (LANE - 6) / 2 + 0.5);
      }
    }
  }

  at(event) {
    const { start, duration, rank, ranks } = this.events;
    const time = this.x.invert(event.offsetX), wanted = ranks[Math.floor(event.offsetY / LANE)];
    for (let i = start.length - 1; i >= 0; i--) {
      if (rank[i] === wanted && start[i] <= time && time <= start[i] + duration[i]) return i;
    }
    return -1;
  }

  tip(event) {
    const found = this.at(event), { start, duration, rank, step, evaluates, name } = this.events;
    if (found < 0) return hideTip();
    const where = evaluates[found] ? `evaluation at step ${step[found]}` : `step ${step[found]}`;
    const words = this.run.timeline.names[name[found]];
    return showTip(event, words, [[phaseColour(words), `rank ${rank[found]}, ${where}`, seconds(duration[found])], [null, "since the start", seconds(start[found])]]);
  }

  /** Zooms about a moment that keeps its place. */
  zoom(factor, moment) {
    const [from, to] = this.window;
    this.show([moment - (moment - from) * factor, moment + (to - moment) * factor]);
  }

  pan(share) {
    const [from, to] = this.window, by = (to - from) * share;
    this.show([from + by, to + by]);
  }

  listen() {
    let grip = null;
    this.canvas.addEventListener("pointerdown", (event) => {
      grip = this.x.invert(event.offsetX);
      this.canvas.setPointerCapture(event.pointerId);
    });
    this.canvas.addEventListener("pointerup", () => (grip = null));
    this.canvas.addEventListener("pointermove", (event) => {
      if (grip === null) return this.tip(event);
      hideTip();
      const by = grip - this.x.invert(event.offsetX);
      return this.show(this.window.map((edge) => edge + by));
    });
    this.canvas.addEventListener("pointerleave", hideTip);
    this.canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey && !event.deltaX) return; // the page scrolls
      event.preventDefault();
      if (event.ctrlKey || event.metaKey) this.zoom(Math.exp(event.deltaY * 0.005), this.x.invert(event.offsetX));
      else this.pan(event.deltaX / this.canvas.clientWidth);
    }, { passive: false });
    this.canvas.addEventListener("keydown", (event) => {
      const middle = (this.window[0] + this.window[1]) / 2;
      const does = {
        ArrowLeft: () => this.pan(-0.15), ArrowRight: () => this.pan(0.15), "+": () => this.zoom(0.7, middle),
        "=": () => this.zoom(0.7, middle), "-": () => this.zoom(1 / 0.7, middle), n: () => this.go(1), p: () => this.go(-1),
        Home: () => this.show([0, this.events.end]),
      }[event.key];
      if (!does || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      does();
    });
  }
}

function timelineHelp() {
  const keys = (...names) => names.map((name) => [el("kbd", {}, name), " "]);
  return el("p", { class: "help" }, "Ctrl and wheel zoom, drag pans; with the keyboard ", keys("←", "→").flat(), "pan, ", keys("+", "−").flat(),
    "zoom, ", keys("n", "p").flat(), "go to the next and the previous step.");
}

function timelineCard(run) {
  return new TimelineView(run).element;
}

/** As much of a text as fits into a width. */
function fitted(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let length = Math.floor((text.length * width) / context.measureText(text).width);
  while (length > 0 && context.measureText(`${text.slice(0, length)}…`).width > width) length -= 1;
  return length > 1 ? `${text.slice(0, length)}…` : "";
}
