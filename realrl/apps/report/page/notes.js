// Warnings, errors and notes of the runs.

function notesPanel() {
  const parts = RUNS.filter((run) => run.notes.length).map((run) => el("section", { class: "stack" },
    el("div", { class: "head" }, runDot(run), el("h2", {}, run.name)), run.notes.map((note) => noteElement(null, note))));
  return parts.length ? parts : [empty("The runs have nothing to say.")];
}

/** A note; with its run's name where notes of several are mixed. */
function noteElement(run, note) {
  const steps = note.step === undefined ? "" : note.last_step === note.step ? `, step ${note.step}` : `, steps ${note.step} to ${note.last_step}`;
  const times = note.times > 1 ? `, ${note.times} times` : "";
  return el("div", { class: `note ${note.level}` },
    el("span", { class: `pill of-${note.level}` }, note.level),
    el("div", {}, el("p", {}, note.text), el("small", {}, `${run ? `${run.name}, ` : ""}${note.where.join(", ")}${steps}${times}`)));
}

function numWarnings() {
  return RUNS.reduce((total, run) => total + run.notes.filter((note) => note.level !== "note").length, 0);
}
