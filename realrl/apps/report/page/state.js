// What a person has chosen, and who wants to know when it changes.

const state = {
  hidden: new Set(),
  smoothing: 0.6,
  logarithmic: false,
  range: null, // steps that curves are zoomed to: [first, last]
  cursor: null, // the step under the pointer
};

const listeners = new Set();

/** Calls `redraw(what)` after each change; `what` is the name of what changed. */
function onChange(redraw) {
  listeners.add(redraw);
}

function change(changes) {
  Object.assign(state, changes);
  for (const what of Object.keys(changes)) for (const redraw of listeners) redraw(what);
}

const NUM_RUN_COLOURS = 8; // of the style: --run-0 and on
const PHASE_COLOURS = [
  "#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#45a6a0", "#d9b53b", "#9c755f", "#f08ba0", "#2f5597",
  "#8a9a3b", "#9aa0a6", "#c7522a", "#5f8f8b", "#7b5ea7", "#b8860b", "#3f7d58", "#d16ba5",
];

function isDark() {
  return document.documentElement.dataset.theme === "dark";
}

/** The name of a run's colour among the style's variables. */
function runVariable(run) {
  return `run-${RUNS.indexOf(run) % NUM_RUN_COLOURS}`;
}

/** A run's colour in the current theme, for canvases. */
function runColour(run) {
  return themeColour(runVariable(run));
}

/** A dot in a run's colour, whatever the theme. */
function runDot(run) {
  return dot(`var(--${runVariable(run)})`);
}

function shownRuns() {
  return RUNS.filter((run) => !state.hidden.has(run));
}

/** The colours of a theme's variables, for canvases. */
function themeColour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

const phaseNames = [];

/** A phase without the call that it serves: `move actor_train` is a move. */
function basePhase(name) {
  return name.replace(/^(reallocate|release|move|forget|offload|save|snapshot|flush) .*/, "$1");
}

/** A phase's colour: the same in every plot. */
function phaseColour(name) {
  const base = basePhase(name);
  if (!phaseNames.includes(base)) phaseNames.push(base);
  return PHASE_COLOURS[phaseNames.indexOf(base) % PHASE_COLOURS.length];
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  change({ theme });
}
