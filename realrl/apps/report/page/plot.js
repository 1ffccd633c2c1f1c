// A canvas with axes. Every plot draws itself when it comes into view and after each change.

const MARGIN = { left: 46, right: 8, top: 8, bottom: 22 };

const drawers = new WeakMap();
const inView = new Set();
const viewer = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) inView.add(target);
    else inView.delete(target);
    if (isIntersecting) redraw(target);
  }
}, { rootMargin: "200px" });

function redraw(canvas) {
  if (canvas.isConnected && canvas.clientWidth) drawers.get(canvas)();
}

function redrawAll() {
  for (const canvas of inView) redraw(canvas);
}

addEventListener("resize", redrawAll);

/** A canvas of a height in pixels; `draw(context, width, height)` paints it in CSS pixels. */
function plotCanvas(height, label, draw) {
  const canvas = el("canvas", { role: "img", "aria-label": label, tabindex: "0", style: { height: `${height}px` } });
  // Until it is drawn there is nothing that a pointer could be over.
  canvas.style.pointerEvents = "none";
  drawers.set(canvas, () => {
    canvas.style.pointerEvents = "";
    const width = canvas.clientWidth, ratio = devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const context = canvas.getContext("2d");
    context.scale(ratio, ratio);
    context.font = "11px system-ui, 'DejaVu Sans', sans-serif";
    draw(context, width, height);
  });
  viewer.observe(canvas);
  return canvas;
}

/** About `count` round numbers from `low` to `high`. */
function ticks(low, high, count) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= raw * 0.999);
  const found = [];
  for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-9; value += step) {
    found.push(Math.abs(value) < step * 1e-9 ? 0 : value);
  }
  return found;
}

/** Powers of ten from `low` to `high`, in logarithms. */
function logarithmicTicks(low, high) {
  const found = [];
  const each = Math.max(1, Math.ceil((high - low) / 5));
  for (let power = Math.ceil(low); power <= high; power += each) found.push(power);
  return found.length > 1 ? found : [low, high];
}

function tickText(value) {
  if (Math.abs(value) >= 1e4 && Math.abs(value) < 1e9) {
    const [size, unit] = Math.abs(value) >= 1e6 ? [1e6, "M"] : [1e3, "k"];
    return `${Number((value / size).toPrecision(3))}${unit}`;
  }
  if (value !== 0 && Math.abs(value) < 1e-3) return value.toExponential(0);
  return String(Number(value.toPrecision(3)));
}

/** Maps numbers of `[low, high]` to pixels of `[begin, end]`; `invert` maps back. */
function scale(low, high, begin, end) {
  const factor = (end - begin) / (high - low || 1);
  const map = (value) => begin + (value - low) * factor;
  map.invert = (pixel) => low + (pixel - begin) / factor;
  return map;
}

/** Draws grid lines and numbers; `texts` turn ticks into words. */
function drawAxes(context, width, height, x, y, xTicks, yTicks, yText = tickText, xText = tickText) {
  context.strokeStyle = themeColour("grid");
  context.fillStyle = themeColour("faint");
  context.lineWidth = 1;
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (const value of yTicks) {
    const at = Math.round(y(value)) + 0.5;
    context.beginPath();
    context.moveTo(MARGIN.left, at);
    context.lineTo(width - MARGIN.right, at);
    context.stroke();
    context.fillText(yText(value), MARGIN.left - 6, at);
  }
  context.textBaseline = "top";
  for (const value of xTicks) {
    const at = x(value), text = xText(value);
    const isLast = at > width - MARGIN.right - context.measureText(text).width / 2;
    context.textAlign = isLast ? "right" : "center";
    context.fillText(text, isLast ? width - MARGIN.right : at, height - MARGIN.bottom + 6);
  }
}

/** The index of the last of sorted `values` that is at most `wanted`, or -1. */
function indexBefore(values, wanted) {
  let low = 0, high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (values[middle] <= wanted) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}
