// Elements and words. Text from a run only ever becomes a text node, never markup.

/** An element with attributes (`on…` are listeners) and children; null children are left out. */
function el(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(element.style, value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

function byId(id) {
  return document.getElementById(id);
}

function dot(colour) {
  return el("span", { class: "dot", style: { background: colour } });
}

function labelled(text, ...controls) {
  return el("label", {}, text, controls);
}

function select(options, chosen, onchange) {
  const items = options.map(([value, text]) => {
    const option = el("option", { value }, text);
    option.selected = value === chosen;
    return option;
  });
  return el("select", { onchange: (event) => onchange(event.target.value) }, items);
}

/** A number with four significant digits, or as many as asked for. */
function shown(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
  if (Number.isInteger(value)) return value.toLocaleString("en-US");
  return String(Number(value.toPrecision(digits)));
}

function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value < 1e-3) return `${(value * 1e6).toFixed(0)} µs`;
  if (value < 1) return `${(value * 1e3).toFixed(value < 0.1 ? 1 : 0)} ms`;
  if (value < 100) return `${value.toFixed(value < 10 ? 2 : 1)} s`;
  const whole = Math.round(value);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return h ? `${h} h ${String(m).padStart(2, "0")} min` : `${m} min ${String(s).padStart(2, "0")} s`;
}

function percent(part) {
  return `${(part * 100).toFixed(part && part < 0.1 ? 1 : 0)} %`;
}

const KINDS = { train: "training", eval: "evaluation", pass: "pass" };

/** Whether rows of a kind are of evaluations: on the held-out rows (`eval`) or on a set (`eval/SET`). */
function isEvaluation(kind) {
  return kind.split("/", 1)[0] === "eval";
}

/** A kind in words. */
function kindName(kind) {
  if (kind in KINDS) return KINDS[kind];
  return isEvaluation(kind) ? `${KINDS.eval} on ${kind.slice("eval/".length)}` : kind;
}

/** Shows a title and rows of `[colour or null, name, value…]` near the pointer. */
function showTip(event, title, rows) {
  const tip = byId("tip");
  tip.replaceChildren(
    el("b", {}, title),
    el("table", {}, rows.map(([colour, ...cells]) => el("tr", {},
      el("td", {}, colour ? dot(colour) : "", " ", cells[0]),
      cells.slice(1).map((cell) => el("td", {}, cell))))),
  );
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const left = event.clientX + 16 + width > innerWidth ? event.clientX - width - 16 : event.clientX + 16;
  const top = Math.min(event.clientY + 14, innerHeight - height - 8);
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${Math.max(8, top)}px`;
}

function hideTip() {
  byId("tip").hidden = true;
}

function empty(text) {
  return el("p", { class: "card empty" }, text);
}
