// Curves over steps: a faint line of all values, a strong one of their smoothed course, evaluations as points.

const SMOOTHED_ALIKE = 250;

/** The factor that smooths a curve of any number of steps over about the same share of its length. */
function factorFor(numSteps) {
  return state.smoothing ** (1 / Math.max(1, numSteps / SMOOTHED_ALIKE));
}

/** Exponential moving average without the bias of its start; gaps stay gaps. */
function smoothed(values, factor) {
  if (!factor) return values;
  const found = new Float64Array(values.length);
  let average = 0, weight = 0;
  for (let i = 0; i < values.length; i++) {
    if (Number.isNaN(values[i])) {
      found[i] = NaN;
      continue;
    }
    average = factor * average + (1 - factor) * values[i];
    weight = factor * weight + (1 - factor);
    found[i] = average / weight;
  }
  return found;
}

/** The lines of a metric: one for each run that is shown and each kind of its rows. */
function linesOf(name) {
  const found = [];
  for (const run of shownRuns()) {
    for (const kind of Object.keys(run.curves)) {
      const line = curve(run, kind, name);
      if (line) found.push({ run, kind, ...line });
    }
  }
  return found;
}

class CurveChart {
  constructor(name, { height = 190, isLarge = false } = {}) {
    this.name = name;
    this.height = height;
    this.last = el("output");
    this.canvas = plotCanvas(height, "", (...all) => this.draw(...all));
    this.cursor = el("div", { class: "cursor", hidden: "" });
    this.band = el("div", { class: "band", hidden: "" });
    this.plot = el("div", { class: "plot" }, this.canvas, this.cursor, this.band);
    const title = isLarge ? el("span", {}, name) : el("button", {
      type: "button", title: `${name}: enlarge`, onclick: () => enlarge(name),
    }, name);
    this.element = el("section", { class: isLarge ? "chart" : "card chart" }, el("h3", {}, title, this.last), this.plot);
    this.listen();
  }

  /** The smoothed lines, computed once for each choice of runs and smoothing. */
  lines() {
    const key = `${state.smoothing} ${[...state.hidden].map((run) => run.name)}`;
    if (this.key !== key) {
      this.key = key;
      this.known = linesOf(this.name).map((line) => ({
        ...line, course: isEvaluation(line.kind) ? line.values : smoothed(line.values, state.smoothing && factorFor(line.values.length)),
      }));
    }
    return this.known;
  }

  draw(context, width, height) {
    const lines = this.lines();
    this.last.textContent = lines.length === 1 ? shown(lastOf(lines[0])) : "";
    this.canvas.setAttribute("aria-label", this.describe(lines));
    const [first, last] = state.range ?? extent(lines.map((line) => line.steps));
    const transform = state.logarithmic ? (v) => (v > 0 ? Math.log10(v) : NaN) : (v) => v;
    const [low, high] = this.bounds(lines, first, last, transform);
    this.x = scale(first, last === first ? first + 1 : last, MARGIN.left, width - MARGIN.right);
    this.y = scale(low, high, height - MARGIN.bottom, MARGIN.top);
    this.transform = transform;
    const yTicks = state.logarithmic ? logarithmicTicks(low, high) : ticks(low, high, height / 45);
    const yText = state.logarithmic ? (v) => tickText(10 ** v) : tickText;
    const xTicks = ticks(first, last, width / 62).filter(Number.isInteger);
    drawAxes(context, width, height, this.x, this.y, xTicks, yTicks, yText);
    context.save();
    context.beginPath();
    context.rect(MARGIN.left, 0, width - MARGIN.left - MARGIN.right + 1, height - MARGIN.bottom + 1);
    context.clip();
    for (const line of lines) this.drawLine(context, line);
    context.restore();
    for (const line of lines) if (hasPoints(line)) this.drawPoints(context, line, first, last);
    this.placeCursor();
  }

  drawLine(context, line) {
    const colour = runColour(line.run);
    context.strokeStyle = context.fillStyle = colour;
    context.lineJoin = "round";
    context.setLineDash([]);
    if (isEvaluation(line.kind)) {
      context.globalAlpha = 0.8;
      context.lineWidth = 1;
      context.setLineDash([3, 3]);
      this.trace(context, line.steps, line.values);
      context.setLineDash([]);
      context.globalAlpha = 1;
      return;
    }
    if (line.course !== line.values) {
      context.globalAlpha = 0.25;
      context.lineWidth = 1;
      this.trace(context, line.steps, line.values);
      context.globalAlpha = 1;
    }
    context.lineWidth = 1.6;
    this.trace(context, line.steps, line.course);
  }

  drawPoints(context, line, first, last) {
    context.fillStyle = runColour(line.run);
    for (let i = 0; i < line.steps.length; i++) {
      const y = this.transform(line.values[i]);
      if (Number.isNaN(y) || line.steps[i] < first || line.steps[i] > last) continue;
      context.beginPath();
      context.arc(this.x(line.steps[i]), this.y(y), 3, 0, 2 * Math.PI);
      context.fill();
    }
  }

  /** One line; where many steps share a pixel, from their least to their largest value. */
  trace(context, steps, values) {
    context.beginPath();
    let pixel = null, low = 0, high = 0, isBegun = false;
    const flush = () => {
      if (pixel === null) return;
      if (isBegun) context.lineTo(pixel, this.y(low));
      else context.moveTo(pixel, this.y(low));
      if (high !== low) context.lineTo(pixel, this.y(high));
      isBegun = true;
      pixel = null;
    };
    const density = steps.length / (this.canvas.clientWidth || 1);
    for (let i = 0; i < steps.length; i++) {
      const value = this.transform(values[i]);
      if (Number.isNaN(value)) {
        flush();
        isBegun = false;
        continue;
      }
      const at = density > 1 ? Math.round(this.x(steps[i])) : this.x(steps[i]);
      if (at === pixel) {
        low = Math.min(low, value);
        high = Math.max(high, value);
        continue;
      }
      flush();
      [pixel, low, high] = [at, value, value];
    }
    flush();
    context.stroke();
  }

  /** The range of values between two steps, with some air. */
  bounds(lines, first, last, transform) {
    let low = Infinity, high = -Infinity;
    for (const line of lines) {
      const source = line.course === line.values || line.values.length < 500 ? line.values : line.course;
      for (let i = 0; i < line.steps.length; i++) {
        if (line.steps[i] < first || line.steps[i] > last) continue;
        const value = transform(source[i]);
        if (!Number.isFinite(value)) continue;
        if (value < low) low = value;
        if (value > high) high = value;
      }
    }
    if (low > high) return [0, 1];
    if (high - low <= Math.abs(high) * 1e-9) return low === 0 ? [0, 1] : [low - Math.abs(low) * 0.1, high + Math.abs(high) * 0.1];
    const air = (high - low) * 0.05;
    if (low >= 0 && low < high * 0.25 && !state.logarithmic) return [0, high + air];
    return [low - air, high + air];
  }

  describe(lines) {
    const parts = lines.map((line) => `${line.run.name}, ${kindName(line.kind)}: from`
      + ` ${shown(firstOf(line))} to ${shown(lastOf(line))} in ${line.steps.length} steps`);
    return `${this.name}. ${parts.join("; ")}. Left and right arrows read values.`;
  }

  listen() {
    let begin = null;
    const stepAt = (event) => {
      const { left } = this.canvas.getBoundingClientRect();
      return this.x.invert(event.clientX - left);
    };
    this.canvas.addEventListener("pointermove", (event) => {
      change({ cursor: Math.round(stepAt(event)) });
      this.tip(event);
      if (begin !== null) this.placeBand(begin, event.offsetX);
    });
    this.canvas.addEventListener("pointerleave", () => {
      change({ cursor: null });
      hideTip();
    });
    this.canvas.addEventListener("pointerdown", (event) => {
      begin = event.offsetX;
      this.canvas.setPointerCapture(event.pointerId);
    });
    this.canvas.addEventListener("pointerup", (event) => {
      const [low, high] = [begin, event.offsetX].sort((a, b) => a - b);
      begin = null;
      this.band.hidden = true;
      if (high - low > 5) change({ range: [Math.max(0, this.x.invert(low)), this.x.invert(high)] });
    });
    this.canvas.addEventListener("dblclick", () => change({ range: null }));
    this.canvas.addEventListener("keydown", (event) => this.press(event));
    this.canvas.addEventListener("blur", () => {
      change({ cursor: null });
      hideTip();
    });
  }

  /** The keyboard's pointer: from one step that has a value to the next. */
  press(event) {
    if (event.key === "Enter") return enlarge(this.name);
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const line = this.lines()[0];
    if (!way || !line || !this.x) return undefined;
    event.preventDefault();
    const [first, last] = state.range ?? [0, Infinity];
    const outside = way > 0 ? indexBefore(line.steps, first - 0.5) : indexBefore(line.steps, last) + 1;
    const now = state.cursor === null ? outside : indexBefore(line.steps, state.cursor);
    const next = Math.min(Math.max(now + way, 0), line.steps.length - 1);
    change({ cursor: line.steps[next] });
    const { left, top } = this.canvas.getBoundingClientRect();
    return this.tip({ clientX: left + this.x(line.steps[next]), clientY: top + 20 });
  }

  tip(event) {
    if (state.cursor === null) return;
    const rows = this.lines().map((line) => {
      const index = nearest(line.steps, state.cursor);
      if (index < 0) return null;
      const both = line.course === line.values ? "" : `${shown(line.course[index])} smoothed`;
      const step = line.steps[index] === state.cursor ? "" : `step ${line.steps[index]}`;
      const kind = Object.keys(line.run.curves).length > 1 ? ` ${kindName(line.kind)}` : "";
      return [runColour(line.run), `${line.run.name}${kind}`, shown(line.values[index]), both, step];
    });
    showTip(event, `${this.name} · step ${state.cursor}`, rows.filter(Boolean));
  }

  placeCursor() {
    const at = state.cursor === null || !this.x ? NaN : this.x(state.cursor);
    const isInside = at >= MARGIN.left && at <= this.canvas.clientWidth - MARGIN.right;
    this.cursor.hidden = !isInside;
    if (!isInside) return;
    Object.assign(this.cursor.style, {
      left: `${at}px`, top: `${MARGIN.top}px`, height: `${this.height - MARGIN.top - MARGIN.bottom}px`,
    });
  }

  placeBand(begin, end) {
    this.band.hidden = false;
    Object.assign(this.band.style, {
      left: `${Math.min(begin, end)}px`, width: `${Math.abs(end - begin)}px`, top: "0",
      height: `${this.height - MARGIN.bottom}px`,
    });
  }

  /** Redraws after a change of anything but the pointer. */
  update(what) {
    if (what === "cursor") this.placeCursor();
    else if (inView.has(this.canvas)) redraw(this.canvas);
  }
}

/** Whether each value is a point of its own: few evaluations, or a single step. */
function hasPoints(line) {
  return line.steps.length === 1 || (isEvaluation(line.kind) && line.steps.length <= 200);
}

/** The index of the step nearest to `wanted`, if there is one. */
function nearest(steps, wanted) {
  const before = indexBefore(steps, wanted);
  if (before < 0) return steps.length ? 0 : -1;
  if (before + 1 < steps.length && steps[before + 1] - wanted < wanted - steps[before]) return before + 1;
  return before;
}

/** The first and the last of all sorted arrays. */
function extent(arrays) {
  const full = arrays.filter((array) => array.length);
  if (!full.length) return [0, 1];
  return [Math.min(...full.map((array) => array[0])), Math.max(...full.map((array) => array[array.length - 1]))];
}

let large = null;

/** Shows a curve as large as the window. */
function enlarge(name) {
  const dialog = byId("large");
  large = new CurveChart(name, { height: Math.max(260, Math.min(560, innerHeight - 220)), isLarge: true });
  const close = el("button", { class: "quiet", type: "button", onclick: () => dialog.close() }, "Close");
  dialog.replaceChildren(large.element, el("div", { class: "tools", style: { marginTop: "12px" } }, curveTools(), close));
  dialog.onclose = () => {
    large = null;
    hideTip();
  };
  dialog.showModal();
}

onChange((what) => large?.update(what));
