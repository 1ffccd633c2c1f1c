"""What a report says of a run's files: whole, under way, damaged, and larger than a report."""

from __future__ import annotations

import base64
import json
import math
from array import array

import pytest

from realrl.apps.report import main, rollouts, timeline
from realrl.apps.report import metrics as metrics_module
from realrl.apps.report.page import embedded, render
from realrl.apps.report.run_files import read_run
from realrl.runtime.watch.status import STATUS
from tests.apps.report.runs import HOSTILE, make_run, write_lines

ALL = 1000


def unpacked(packed):
    ((kind, text),) = packed.items()
    return array({"f32": "f", "f64": "d", "i32": "i"}[kind], base64.b64decode(text)).tolist()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("runs") / "sums" / "first")


def test_a_curve_has_every_step(run):
    """As the file says, with a gap where it has no number."""
    found = read_run(run, ALL)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    train = found["curves"]["train"]
    assert unpacked(train["steps"]) == list(range(6))
    assert unpacked(train["series"]["reward"]) == pytest.approx([row["reward"] for row in rows])
    assert [math.isnan(value) for value in unpacked(train["series"]["actor_loss"])].index(True) == 1
    assert "weights" not in train["series"] and "kind" not in train["series"]
    assert unpacked(found["phases"]["series"]["actor_gen"]) == pytest.approx([0.4] * 6)
    assert (found["name"], found["state"], found["num_done"], found["num_steps"]) == (
        "sums/first",
        "ended",
        6,
        6,
    )


def test_each_set_of_evaluations_has_curves_of_its_own(tmp_path):
    """A row of the held-out rows has no set."""
    row = {"step": 0, "kind": "eval", "reward": 1.0}
    rows = [row, row | {"set": "aime", "reward": 2.0}, row | {"set": "aime", "step": 4, "reward": 3.0}]
    write_lines(tmp_path / "metrics.jsonl", rows)
    found = read_run(tmp_path, ALL)["curves"]
    assert unpacked(found["eval"]["series"]["reward"]) == [1.0] and "set" not in found["eval/aime"]["series"]
    assert unpacked(found["eval/aime"]["steps"]) == [0, 4]
    assert unpacked(found["eval/aime"]["series"]["reward"]) == [2.0, 3.0]


def test_numbers_beyond_32_bits_stay_numbers(tmp_path):
    """JSON of ours has no infinities; a loss may be large all the same."""
    write_lines(tmp_path / "metrics.jsonl", [{"step": 0, "kind": "train", "loss": 1e300, "phases_s": {}}])
    assert unpacked(read_run(tmp_path, ALL)["curves"]["train"]["series"]["loss"]) == [1e300]


def test_a_long_curve_is_thinned_to_means(tmp_path, monkeypatch):
    monkeypatch.setattr(metrics_module, "MOST_POINTS", 2)
    rows = [{"step": s, "kind": "train", "loss": v} for s, v in enumerate((1.0, 3.0, 5.0, None, 9.0))]
    write_lines(tmp_path / "metrics.jsonl", rows)
    train = read_run(tmp_path, ALL)["curves"]["train"]
    # Three neighbours each; what has no number does not count.
    assert unpacked(train["steps"]) == [0, 3] and unpacked(train["series"]["loss"]) == [3.0, 9.0]


@pytest.mark.parametrize("cut", ["", '{"step": 6, "kind": "tr'])
def test_damaged_lines_are_left_out_and_said(tmp_path, cut):
    """A run that is under way may be in the middle of a line."""
    run = make_run(tmp_path / "sums" / "now", is_over=False)
    with (run / "metrics.jsonl").open("a") as file:
        file.write(
            '{"step": "six"}\n{"step": 1e9, "kind": "train"}\n{"step": 99999999999, "kind": "train"}\n'
        )
        file.write("\x00\x01 nonsense\n" + cut)
    found = read_run(run, ALL)
    assert len(unpacked(found["curves"]["train"]["steps"])) == 6 and found["state"] == "running"
    said = [note["text"] for note in found["notes"] if note["where"] == ["report"]]
    assert "metrics.jsonl: 1 damaged lines are left out" in said
    assert "metrics.jsonl: 3 lines without a step or a kind are left out" in said
    assert ("metrics.jsonl: the last line is incomplete and left out" in said) == bool(cut)


def test_a_run_whose_master_is_gone_is_not_taken_for_one_under_way(tmp_path):
    """Nor one that ended with a failure; a resumed run is under way though it has a summary."""
    run = make_run(tmp_path / "sums" / "gone", is_over=False)
    status = json.loads((run / STATUS).read_text())
    (run / STATUS).write_text(json.dumps(status | {"process_start": 1}))
    found = read_run(run, ALL)
    assert found["state"] == "stopped" and "is dead" in found["notes"][0]["text"]
    (run / STATUS).write_text(json.dumps(status | {"is_over": True, "phase": "failed: rank 1 died"}))
    found = read_run(run, ALL)
    assert found["state"] == "failed" and found["notes"][0]["text"] == "failed: rank 1 died"
    (run / STATUS).write_text(json.dumps(status))
    (run / "summary.json").write_text("{}")
    assert read_run(run, ALL)["state"] == "running"


def test_json_as_python_writes_it_is_read(tmp_path):
    """NaN, infinities, half of a surrogate pair: the line counts, the page is still strict JSON."""
    (tmp_path / "config.yaml").write_text("recipe: grpo\n")
    (tmp_path / "metrics.jsonl").write_text('{"step": 0, "kind": "train", "loss": NaN, "kl": Infinity}\n')
    (tmp_path / "rollouts.jsonl").write_text(
        '{"step": 0, "evaluating": false, "response": "\\ud800", "reward": NaN}\n'
    )
    found = read_run(tmp_path, ALL)
    assert unpacked(found["curves"]["train"]["series"]["kl"]) == [math.inf] and len(found["samples"]) == 1
    json.loads(embedded(found), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_a_directory_without_files_is_a_run_without_content(tmp_path):
    found = read_run(tmp_path, ALL)
    assert (found["curves"], found["samples"], found["timeline"]) == ({}, [], None)
    assert found["state"] == "unknown" and "config.yaml is missing" in found["notes"][0]["text"]


def test_warnings_of_all_places_are_gathered_once(run):
    """Of metrics, summary and logs; numbers apart, the same line is one. Python's own are notes."""
    notes = {note["text"]: note for note in read_run(run, ALL)["notes"]}
    silent = notes["rank 1: nothing for 12 s"]
    assert (silent["level"], silent["times"], silent["where"]) == ("warning", 2, ["master.log"])
    assert notes["all rewards were equal in 3 steps"]["where"] == ["summary"]
    assert notes["a package is about to change"]["level"] == "note"
    assert notes["a step: 4 rows x 2 samples"]["level"] == "note"
    assert "recovery goes on from here" not in notes


def test_warnings_of_steps_name_their_steps(tmp_path):
    """Texts or objects, whichever a version of realrl writes."""
    rows = [{"step": s, "kind": "train", "warnings": [f"{s} of 8 responses are empty"]} for s in (3, 4)]
    rows.append(
        {"step": 5, "kind": "train", "warnings": [{"name": "equal", "text": "all rewards are equal"}]}
    )
    write_lines(tmp_path / "metrics.jsonl", rows)
    notes = {note["text"]: note for note in read_run(tmp_path, ALL)["notes"] if note["where"] == ["metrics"]}
    empty = notes["3 of 8 responses are empty"]
    assert (empty["step"], empty["last_step"], empty["times"]) == (3, 4, 2)
    assert notes["equal: all rewards are equal"]["step"] == 5


def test_settings_that_are_no_defaults_are_named(tmp_path):
    run = make_run(tmp_path / "sums" / "a", overrides=["actor.optimizer.lr=0.125"])
    found = read_run(run, ALL)
    assert set(found["changed"]) == {"experiment", "num_steps", "actor.optimizer.lr"}
    assert found["settings"]["actor.optimizer.lr"] == 0.125 and found["recipe"] == "grpo"


def test_the_timeline_has_every_event_of_a_short_run(run):
    found = read_run(run, ALL)["timeline"]
    assert found["num_events"] == len(unpacked(found["start"])) == 6 * 4 * 2
    assert min(unpacked(found["start"])) == 0 and set(unpacked(found["rank"])) == {0, 1}
    assert [rank["rank"] for rank in found["busy"]] == [0, 1]
    assert all(sum(s for _, s in rank["seconds"]) <= rank["whole_s"] for rank in found["busy"])


def test_a_long_timeline_keeps_whole_steps(tmp_path, monkeypatch):
    """The first, the last and the slowest; the shares of ranks are those of all."""
    run = make_run(tmp_path / "sums" / "long", num_steps=200)
    whole = read_run(run, ALL)["timeline"]
    monkeypatch.setattr(timeline, "MOST_EVENTS", 50 * 8)
    found = read_run(run, ALL)["timeline"]
    steps = unpacked(found["step"])
    assert {0, 199} <= set(steps) and len(set(steps)) == 50
    assert all(steps.count(step) == 8 for step in set(steps))
    assert found["busy"] == whole["busy"] and found["num_events"] == 1600


def test_distributions_count_every_rollout(run):
    found = read_run(run, ALL)["distributions"]["train"]
    assert sum(unpacked(found["reward"]["counts"])) == 24 and found["length"]["unit"] == "tokens"
    # Rewards of 0 and 1 have a range each.
    assert found["reward"]["edges"] == [-0.5, 0.5, 1.5]
    lines = [json.loads(line) for line in (run / "rollouts.jsonl").read_text().splitlines()]
    first_step = unpacked(found["reward"]["counts"])[:2]
    assert first_step[1] == sum(line["reward"] for line in lines if line["step"] == 0)


def test_distributions_of_many_steps_have_few_columns(tmp_path):
    """Each of a span of steps; nothing is lost."""
    lines = [
        {"step": s, "evaluating": False, "response": "x" * (s % 50), "reward": s / 7} for s in range(1000)
    ]
    write_lines(tmp_path / "rollouts.jsonl", lines)
    write_lines(tmp_path / "metrics.jsonl", [{"step": 0, "kind": "train"}])
    found = read_run(tmp_path, 10)["distributions"]["train"]
    assert len(found["length"]["columns"]) <= 60 and found["length"]["unit"] == "characters"
    assert found["length"]["columns"][0] == (0, 16) and found["length"]["columns"][-1][1] == 999
    assert sum(unpacked(found["length"]["counts"])) == sum(unpacked(found["reward"]["counts"])) == 1000


def test_a_response_that_was_not_graded_has_no_reward(tmp_path):
    """A check that took too long is no reward of 0."""
    graded = [{"verdict": "correct", "reward": 1.0}, {"verdict": "timeout", "reward": None}]
    lines = [{"step": 0, "evaluating": False, "response": "x", **row} for row in graded]
    write_lines(tmp_path / "rollouts.jsonl", lines)
    write_lines(tmp_path / "metrics.jsonl", [{"step": 0, "kind": "train"}])
    found = read_run(tmp_path, 10)["distributions"]["train"]
    assert sum(unpacked(found["reward"]["counts"])) == 1 and sum(unpacked(found["length"]["counts"])) == 2


def test_samples_of_a_long_run_are_spread_over_its_steps(tmp_path):
    """Whole groups from the beginning of each step; the first and the last step are there."""
    run = make_run(tmp_path / "sums" / "long", num_steps=100, samples=8)
    found = read_run(run, 64)
    steps = [sample["step"] for sample in found["samples"]]
    assert len(steps) <= 64 and found["num_samples"] == 800
    assert {0, 99} <= set(read_run(run, 200)["samples"][i]["step"] for i in (0, -1))
    assert found["samples"][0]["advantage"] in (-0.5, 0.5) and found["samples"][0]["tokens"][-1] == "<eos>"


def test_long_texts_keep_their_ends():
    text = rollouts.clipped("a" * 5000 + "b" * 5000)
    assert (
        text.startswith("a" * 4000) and text.endswith("b" * 2000) and "4000 characters are left out" in text
    )


def test_a_pass_is_read_by_its_batches(tmp_path):
    """Its records name no step: a batch's size tells."""
    (tmp_path / "config.yaml").write_text("recipe: gen\nexperiment: gen\n")
    rows = [
        {"step": s, "kind": "pass", "num_sequences": 2, "accuracy": 0.5, "phases_s": {"generate": 1.0}}
        for s in (0, 1)
    ]
    write_lines(tmp_path / "metrics.jsonl", rows)
    records = [
        {"row": i, "sample": 0, "response": "x", "verdict": v, "num_tokens": 3}
        for i, v in enumerate(("correct", "wrong") * 2)
    ]
    write_lines(tmp_path / "generations.jsonl", records)
    found = read_run(tmp_path, ALL)
    assert [sample["step"] for sample in found["samples"]] == [0, 0, 1, 1]
    assert unpacked(found["distributions"]["pass"]["reward"]["counts"]) == [1, 1, 1, 1]
    assert found["main_kind"] == "pass" and unpacked(found["phases"]["series"]["generate"]) == [1.0, 1.0]


def test_the_page_is_one_file_that_no_text_can_break():
    """Whatever a run holds: tags, the template's own marks, characters that end a line of script."""
    hostile = HOSTILE + "/* script */ /* data */"
    page = render({"runs": [], "text": hostile})
    assert page.count("</script>") == 2 and "<img" not in page
    data = page.partition('id="data">')[2].partition("</script>")[0]
    assert json.loads(data)["text"] == hostile
    page = render({"runs": []})
    assert "src=" not in page and "http:" not in page and "https:" not in page
    # Text of a run becomes text nodes, never markup.
    assert "innerHTML" not in page and "insertAdjacentHTML" not in page and "eval(" not in page


def test_the_command_writes_where_it_is_told(tmp_path, monkeypatch, capsys):
    """To the run's directory by default; an experiment stands for its trials."""
    monkeypatch.chdir(tmp_path)
    for trial in ("a", "b"):
        make_run(tmp_path / "runs" / "sums" / trial)
    assert main(["sums/a"]) == 0 and (tmp_path / "runs/sums/a/report.html").is_file()
    assert main(["runs/sums", "sums/a"]) == 0 and "report.html: 2 runs" in capsys.readouterr().out
    assert main(["sums/b", "-o", "mine.html"]) == 0 and (tmp_path / "mine.html").is_file()
    assert main(["nowhere"]) == 2 and "RUN: expected" in capsys.readouterr().err
    assert main(["sums/a", "-o", "no/such\x00"]) == 2
