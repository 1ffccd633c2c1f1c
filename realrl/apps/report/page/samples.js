// Rollouts to browse and filter, with their tokens, verdicts, rewards and advantages.

const AT_ONCE = 200;

class SampleBrowser {
  constructor() {
    this.all = RUNS.flatMap((run) => run.samples.map((sample) => ({ run, ...sample })));
    this.filters = { run: "", kind: "", verdict: "", from: "", to: "", least: "", most: "", text: "" };
    this.order = "step";
    this.colouring = "logprobs";
    this.list = el("div", { class: "card list", role: "listbox", tabindex: "0", "aria-label": "Samples", onkeydown: (event) => this.press(event) });
    this.detail = el("article", { class: "sample", "aria-live": "polite" });
    this.count = el("small", { role: "status" });
  }

  panel() {
    if (!this.all.length) return [empty("No run has written down rollouts.")];
    this.refresh();
    return [this.tools(), el("div", { class: "browser" }, this.list, this.detail)];
  }

  tools() {
    const set = (name) => (value) => {
      this.filters[name] = value;
      this.refresh();
    };
    const values = (name) => [...new Set(this.all.map((sample) => sample[name]).filter((value) => value !== undefined))];
    const choice = (name, label, options) => (options.length < 2 ? null
      : labelled(label, select([["", "all"], ...options], "", set(name))));
    const bound = (name, label) => el("input", { type: "number", step: "any", "aria-label": label, placeholder: label.split(" ").pop(), oninput: (event) => set(name)(event.target.value) });
    const text = el("input", { type: "search", class: "find", placeholder: "Find text   /", "aria-label": "Find text in prompts and responses", oninput: (event) => set("text")(event.target.value) });
    const orders = [["step", "step"], ["reward", "reward"], ["advantage", "advantage"], ["length", "length"]];
    const sort = select(orders, "step", (value) => {
      this.order = value;
      this.refresh();
    });
    return el("div", { class: "tools" }, text,
      choice("run", "Run", RUNS.filter((run) => run.samples.length).map((run) => [String(RUNS.indexOf(run)), run.name])),
      choice("kind", "Kind", values("kind").map((kind) => [kind, kindName(kind)])),
      choice("verdict", "Verdict", values("verdict").map((verdict) => [verdict, verdict.replaceAll("_", " ")])),
      labelled("Steps", bound("from", "Steps from"), bound("to", "Steps to")),
      labelled("Reward", bound("least", "Reward from"), bound("most", "Reward to")),
      labelled("Sort by", sort), this.count);
  }

  accepts(sample) {
    const { run, kind, verdict, from, to, least, most, text } = this.filters;
    const words = text.toLowerCase();
    return (run === "" || RUNS[run] === sample.run)
      && (kind === "" || sample.kind === kind)
      && (verdict === "" || sample.verdict === verdict)
      && (from === "" || sample.step >= Number(from)) && (to === "" || sample.step <= Number(to))
      && (least === "" || sample.reward >= Number(least)) && (most === "" || sample.reward <= Number(most))
      && (!words || `${sample.prompt}\n${sample.response}`.toLowerCase().includes(words));
  }

  refresh() {
    const value = { step: (s) => -s.step, reward: (s) => s.reward ?? -Infinity, advantage: (s) => s.advantage ?? -Infinity, length: lengthOf }[this.order];
    this.found = this.all.filter((sample) => this.accepts(sample));
    if (this.order !== "step") this.found.sort((a, b) => value(b) - value(a));
    const whole = RUNS.reduce((total, run) => total + run.num_samples, 0);
    const of = whole > this.all.length ? ` of ${this.all.length} that are here; the runs have ${whole.toLocaleString("en-US")}` : ` of ${this.all.length}`;
    this.count.textContent = `${this.found.length}${of}`;
    this.list.replaceChildren();
    this.rows = [];
    this.more();
    this.choose(0, false);
  }

  /** Adds the next rows to the list. */
  more() {
    const begin = this.rows.length;
    this.list.querySelector("button")?.remove();
    for (const sample of this.found.slice(begin, begin + AT_ONCE)) {
      const index = this.rows.length;
      this.rows.push(this.row(sample, index));
    }
    this.list.append(...this.rows.slice(begin));
    if (this.rows.length < this.found.length) {
      const left = this.found.length - this.rows.length;
      this.list.append(el("button", { class: "quiet", type: "button", onclick: () => this.more() }, `${left} more`));
    }
    if (!this.found.length) this.list.append(el("p", { class: "empty" }, "Nothing fits these filters."));
  }

  row(sample, index) {
    return el("div", { role: "option", id: `sample-${index}`, "aria-selected": "false", onclick: () => this.choose(index) },
      el("div", { class: "line" }, RUNS.length > 1 ? runDot(sample.run) : null, `${isEvaluation(sample.kind) ? "eval at " : ""}step ${sample.step}`,
        verdictPill(sample.verdict), el("span", {}, sample.reward === undefined ? "" : `reward ${shown(sample.reward)}`), el("span", {}, lengthText(sample))),
      el("div", { class: "text" }, sample.prompt.trim().slice(0, 120)),
      el("div", { class: "text soft" }, sample.response.trim().slice(0, 120) || "(empty)"));
  }

  choose(index, scrolls = true) {
    this.rows[this.chosen]?.setAttribute("aria-selected", "false");
    this.chosen = index;
    const row = this.rows[index];
    if (!row) return this.detail.replaceChildren();
    row.setAttribute("aria-selected", "true");
    this.list.setAttribute("aria-activedescendant", row.id);
    if (scrolls) row.scrollIntoView({ block: "nearest" });
    return this.show(this.found[index]);
  }

  press(event) {
    const by = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: 10, PageUp: -10 }[event.key];
    if (!by) return;
    event.preventDefault();
    const next = Math.min(Math.max(this.chosen + by, 0), this.found.length - 1);
    if (next >= this.rows.length) this.more();
    this.choose(next);
  }

  show(sample) {
    const facts = [["run", sample.run.name], ["step", isEvaluation(sample.kind) ? `evaluation at ${sample.step}` : sample.step],
      ["row", sample.row], ["query", sample.query_id], ["reward", optional(sample.reward)], ["advantage", optional(sample.advantage)],
      ["length", lengthText(sample)], ["ended", sample.ended === undefined ? undefined : sample.ended ? "by itself" : "cut off"],
      ["answer", sample.answer]].filter(([, value]) => value !== undefined);
    const verdict = verdictPill(sample.verdict);
    this.detail.replaceChildren(
      el("dl", { class: "card facts" }, verdict ? el("div", {}, el("dt", {}, "verdict"), el("dd", {}, verdict)) : null,
        facts.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, String(value))))),
      el("section", { class: "card" }, el("h3", {}, "Prompt"), el("pre", {}, sample.prompt)),
      el("section", { class: "card" }, this.response(sample)),
      sample.solutions?.length ? el("section", { class: "card" }, el("h3", {}, "Solutions"), el("pre", {}, sample.solutions.join("\n"))) : "",
      this.group(sample));
  }

  /** The response: its tokens where they are written down, coloured by one of their numbers. */
  response(sample) {
    if (!sample.tokens) return [el("h3", {}, "Response"), el("pre", {}, sample.response || "(empty)")];
    const available = [["plain", "borders alone"], ["logprobs", "log-probability"], ["advantages", "advantage"]].filter(([name]) => name === "plain" || sample[name]);
    const colouring = available.some(([name]) => name === this.colouring) ? this.colouring : "plain";
    const choice = select(available, colouring, (value) => {
      this.colouring = value;
      this.show(sample);
    });
    const numbers = sample[colouring];
    const most = numbers ? Math.max(...numbers.map(Math.abs), 1e-9) : 1;
    const marks = sample.tokens.map((token, i) => el("mark", {
      style: { background: tokenColour(colouring, numbers?.[i], most) },
      onpointermove: (event) => showTip(event, `token ${i + 1} of ${sample.tokens.length}`, tokenFacts(sample, i)),
      onpointerleave: hideTip,
    }, token.replaceAll("\n", "⏎\n")));
    const cut = sample.num_tokens > sample.tokens.length ? el("span", { class: "soft" }, ` … ${sample.num_tokens - sample.tokens.length} more tokens`) : null;
    return [el("div", { class: "row" }, el("h3", {}, `Response, ${sample.tokens.length} tokens`), labelled("Colour by", choice)),
      el("pre", { class: "split" }, marks, cut)];
  }

  /** The other samples of the same prompt in the same step. */
  group(sample) {
    const others = sample.run.samples.filter((each) => each.kind === sample.kind && each.step === sample.step
      && each.row === sample.row && each.group === sample.group && each.prompt === sample.prompt);
    if (others.length < 2) return "";
    const buttons = others.map((each, i) => el("button", {
      type: "button", "aria-current": String(same(each, sample)), onclick: () => this.show({ run: sample.run, ...each }),
    }, `${i + 1}: `, each.verdict ? `${each.verdict.replaceAll("_", " ")} ` : "", each.reward === undefined ? "" : shown(each.reward),
    each.advantage === undefined ? "" : ` (${each.advantage > 0 ? "+" : ""}${shown(each.advantage)})`));
    const title = others.some((each) => each.advantage !== undefined) ? "All samples of this prompt: reward (advantage)" : "All samples of this prompt";
    return el("section", { class: "card" }, el("h3", {}, title), el("div", { class: "group" }, buttons));
  }
}

function same(one, other) {
  return one.sample === other.sample && one.response === other.response;
}

function optional(value) {
  return value === undefined ? undefined : shown(value);
}

function lengthOf(sample) {
  return sample.num_tokens ?? sample.response.length;
}

function lengthText(sample) {
  return sample.num_tokens === undefined ? `${sample.response.length} characters` : `${sample.num_tokens} tokens`;
}

function verdictPill(verdict) {
  return verdict === undefined ? null : el("span", { class: `pill ${verdict.replace(/[^a-z_]/g, "")}` }, verdict.replaceAll("_", " "));
}

/** Red for what is unlikely or below 0, green for what is above. */
function tokenColour(colouring, value, most) {
  if (value === undefined || value === null) return "none";
  if (colouring === "logprobs") return `rgba(217, 83, 25, ${Math.min(0.75, -value / 8)})`;
  const strength = Math.min(0.7, (Math.abs(value) / most) * 0.7);
  return value < 0 ? `rgba(198, 47, 47, ${strength})` : `rgba(26, 127, 75, ${strength})`;
}

function tokenFacts(sample, i) {
  const facts = [[null, "token", JSON.stringify(sample.tokens[i])]];
  const logprob = sample.logprobs?.[i], advantage = sample.advantages?.[i] ?? sample.advantage;
  if (logprob !== undefined) facts.push([null, "log-probability", shown(logprob)], [null, "probability", percent(Math.exp(logprob))]);
  if (advantage !== undefined) facts.push([null, "advantage", shown(advantage)]);
  return facts;
}
