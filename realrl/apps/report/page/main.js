// Puts the page together: the legend, the tabs, and the keys of the whole page.

const TABS = [
  ["overview", "Overview", overviewPanel],
  ["curves", "Curves", curvesPanel],
  ["time", "Time", timePanel],
  ["distributions", "Distributions", distributionsPanel],
  ["samples", "Samples", () => new SampleBrowser().panel()],
  ["settings", "Settings", settingsPanel],
  ["notes", "Notes", notesPanel],
];

function makeTabs() {
  for (const [name, title] of TABS) {
    const count = name === "notes" && numWarnings() ? el("span", { class: "count" }, String(numWarnings())) : null;
    byId("tabs").append(el("button", { role: "tab", type: "button", id: `tab-${name}`, "aria-controls": `panel-${name}`, onclick: () => (location.hash = name) }, title, count));
    byId("panels").append(el("div", { role: "tabpanel", id: `panel-${name}`, "aria-labelledby": `tab-${name}`, hidden: "" }));
  }
  byId("tabs").addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    const next = TABS[(currentTab() + by + TABS.length) % TABS.length][0];
    location.hash = next;
    byId(`tab-${next}`).focus();
  });
}

function currentTab() {
  return Math.max(0, TABS.findIndex(([name]) => name === location.hash.slice(1)));
}

/** Shows the tab that the address names; a panel is filled when it is first shown. */
function showTab() {
  hideTip();
  const current = currentTab();
  TABS.forEach(([name, , fill], i) => {
    const tab = byId(`tab-${name}`), panel = byId(`panel-${name}`);
    tab.setAttribute("aria-selected", String(i === current));
    tab.tabIndex = i === current ? 0 : -1;
    panel.hidden = i !== current;
    if (i === current && !panel.childElementCount) panel.append(...fill());
  });
  scrollTo(0, 0);
}

function makeLegend() {
  byId("legend").replaceChildren(...RUNS.map((run) => el("button", {
    type: "button", class: "chip", title: run.directory, "aria-pressed": String(!state.hidden.has(run)),
    onclick: () => toggle(run),
  }, runDot(run), el("span", {}, run.name))));
}

function toggle(run) {
  const hidden = new Set(state.hidden);
  if (!hidden.delete(run)) hidden.add(run);
  change({ hidden });
}

function press(event) {
  if (event.target.closest("input, select, dialog") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") {
    const field = document.querySelector("[role=tabpanel]:not([hidden]) .find");
    if (!field) return;
    event.preventDefault();
    field.focus();
  } else if (event.key === "t") {
    setTheme(isDark() ? "light" : "dark");
  } else if (/^[1-7]$/.test(event.key)) {
    location.hash = TABS[event.key - 1][0];
  }
}

function begin() {
  document.documentElement.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  if (RUNS.length === 1) document.title = `${RUNS[0].name} · realrl report`;
  makeTabs();
  makeLegend();
  onChange((what) => {
    if (what === "hidden") makeLegend();
  });
  byId("theme").addEventListener("click", () => setTheme(isDark() ? "light" : "dark"));
  addEventListener("hashchange", showTab);
  addEventListener("keydown", press);
  const made = new Date(DATA.made_s * 1000).toLocaleString();
  byId("foot").textContent = `Made on ${made} by realrl ${DATA.version}. Keys: 1 to 7 tabs, / find, t light or dark. ${RUNS.map((run) => run.directory).join(" · ")}`;
  showTab();
  // Two frames later all that is in view is drawn.
  requestAnimationFrame(() => requestAnimationFrame(() => (document.documentElement.dataset.drawnMs = performance.now().toFixed(0))));
}

begin();
