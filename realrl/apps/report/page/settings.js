// Settings: what runs differ in, what is not a recipe's default, or all.

function settingsPanel() {
  const keys = [...new Set(RUNS.flatMap((run) => Object.keys(run.settings)))];
  if (!keys.length) return [empty("No run has a config.yaml.")];
  const differing = new Set(keys.filter((key) => new Set(RUNS.map((run) => settingText(run, key))).size > 1));
  const changed = new Set(RUNS.flatMap((run) => run.changed));
  const choices = [
    ["differ", `Differences between runs (${differing.size})`, (key) => differing.has(key)],
    ["changed", `Not the recipe's default (${changed.size})`, (key) => changed.has(key)],
    ["all", `All (${keys.length})`, () => true],
  ].filter(([name]) => name !== "differ" || RUNS.length > 1);
  let chosen = choices[0];
  const body = el("tbody");
  const search = el("input", { type: "search", class: "find", placeholder: "Find a setting   /", "aria-label": "Find a setting", oninput: () => fill() });
  const buttons = choices.map((choice) => el("button", { class: "quiet", type: "button", "aria-pressed": String(choice === chosen), onclick: () => {
    chosen = choice;
    buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(choices[i] === chosen)));
    fill();
  } }, choice[1]));
  const fill = () => {
    const rows = keys.filter((key) => chosen[2](key) && key.toLowerCase().includes(search.value.toLowerCase()));
    body.replaceChildren(...rows.map(settingRow));
    if (!rows.length) body.append(el("tr", {}, el("td", { colspan: String(RUNS.length + 1), class: "soft" }, "None.")));
  };
  fill();
  const heads = RUNS.map((run) => el("th", { scope: "col" }, runDot(run), " ", run.name));
  return [el("div", { class: "tools" }, search, buttons),
    el("section", { class: "card scroll" }, el("table", { class: "settings", style: { minWidth: RUNS.length > 4 ? `${RUNS.length * 170 + 240}px` : "0" } },
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "setting"), heads)), body),
    el("p", { class: "help" }, "Values in colour are not the recipe's defaults in this version."))];
}

function settingRow(key) {
  return el("tr", {}, el("th", { scope: "row", class: "mono" }, key),
    RUNS.map((run) => el("td", { class: run.changed.includes(key) ? "mono changed" : "mono" }, settingText(run, key))));
}

function settingText(run, key) {
  if (!(key in run.settings)) return "–";
  const value = run.settings[key];
  if (typeof value === "string") return value || "''";
  const isSmall = typeof value === "number" && value !== 0 && Math.abs(value) < 1e-3;
  return isSmall ? value.toExponential() : JSON.stringify(value);
}
