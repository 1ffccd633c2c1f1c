// A card for each run, the most telling curves, and what the runs warn of.

const TELLING = [
  "greedy_accuracy", "accuracy", "reward", "loss", "response_tokens", "truncated", "kl_to_ref", "actor_entropy",
  "actor_grad_norm", "grad_norm", "critic_loss", "tokens_per_s",
];
const MOST_TELLING = 6;
const MOST_WARNINGS = 5;
const HEADLINES = [["eval", "greedy_accuracy"], ["eval", "reward"], ["eval", "loss"], ["train", "reward"], ["train", "accuracy"], ["train", "loss"],
  ["pass", "accuracy"], ["pass", "greedy_accuracy"], ["train", "response_tokens"], ["pass", "response_tokens"]];
const MOST_HEADLINES = 5;

function overviewPanel() {
  const names = metricNames();
  const namesOfSets = [...names.keys()].filter((name) => /^avg@\d+$/.test(name));
  const telling = [...namesOfSets, ...TELLING.filter((name) => names.has(name))].slice(0, MOST_TELLING);
  const parts = [el("div", { class: "grid runs" }, RUNS.map(runCard))];
  const warnings = RUNS.flatMap((run) => run.notes.filter((note) => note.level !== "note").map((note) => [run, note]));
  if (warnings.length) {
    const rest = warnings.length - MOST_WARNINGS;
    const more = rest > 0 ? [el("p", {}, el("a", { href: "#notes" }, `${rest} more under Notes`))] : [];
    parts.push(el("div", { class: "stack" }, warnings.slice(0, MOST_WARNINGS).map(([run, note]) => noteElement(run, note)), more));
  }
  if (telling.length) parts.push(curveTools(), el("div", { class: "grid" }, telling.map((name) => chartOf(name, { height: 170 }).element)));
  else parts.push(empty("No step is done yet."));
  return parts;
}

function runCard(run) {
  const total = run.num_steps, share = total ? Math.min(1, run.num_done / total) : run.state === "ended" ? 1 : 0;
  const unit = run.main_kind === "pass" ? "batches" : "steps";
  const progress = total ? `${shown(run.num_done)} of ${shown(total)} ${unit}` : `${shown(run.num_done)} ${unit}`;
  const fill = el("i", { style: { width: `${share * 100}%`, background: `var(--${runVariable(run)})` } });
  const facts = [["progress", progress], ["time", seconds(run.lasted_s)], ...headlines(run), ["tokens/s", shown(speedOf(run), 3)]];
  return el("section", { class: "card" },
    el("div", { class: "row" },
      el("div", { class: "head" }, runDot(run), el("h2", { title: run.directory }, run.name)),
      el("div", {}, run.recipe ? el("span", { class: "pill" }, run.recipe) : null, " ", el("span", { class: `pill ${run.state}` }, run.state))),
    el("div", { class: "bar" }, fill),
    el("dl", { class: "facts" }, facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value)))));
}

/** The main number of each set that a run is evaluated on, except the held-out rows. */
function headlinesOfSets(run) {
  const sets = Object.entries(run.curves).filter(([kind]) => kind.startsWith("eval/"));
  return sets.map(([kind, columns]) => {
    const names = Object.keys(columns.series);
    return [kind, names.find((name) => /^avg@\d+$/.test(name)) ?? names.find((name) => name === "greedy_accuracy") ?? "reward"];
  });
}

/** The numbers that say most of a run, from its first to its last step or evaluation. */
function headlines(run) {
  const found = [];
  for (const [kind, name] of [...headlinesOfSets(run), ...HEADLINES]) {
    const line = curve(run, kind, name);
    if (!line || lastOf(line) === null) continue;
    const on = kind === "eval" ? "held-out" : kind.slice("eval/".length);
    const title = isEvaluation(kind) ? `${on} ${name.replace("greedy_", "")}` : name;
    const value = kind === "pass" ? shown(meanOf(line)) : `${shown(firstOf(line), 3)} → ${shown(lastOf(line), 3)}`;
    found.push([title.replaceAll("_", " "), value]);
  }
  return found.slice(0, MOST_HEADLINES);
}

/** Tokens a second over all steps: the mean of the steps' speeds would count short ones too much. */
function speedOf(run) {
  const tokens = curve(run, run.main_kind, "num_tokens"), time = curve(run, run.main_kind, "duration_s");
  return tokens && time ? meanOf(tokens) / meanOf(time) : null;
}

function meanOf(line) {
  if (!line) return null;
  const numbers = line.values.filter((value) => !Number.isNaN(value));
  return numbers.length ? numbers.reduce((sum, value) => sum + value, 0) / numbers.length : null;
}
