"""Bad input ends with exit code 2 and one plain message, before any worker starts."""

import json
import shutil

import pytest

from realrl.apps.quickstart import main
from tests.demo import SUMS

ROW = {"query_id": "1", "prompt": "1 + 1 =", "solutions": ["2"]}


def refused(result) -> str:
    """The message of a command that was refused."""
    code, out, err = result
    assert code == 2 and out == ""
    assert err.startswith("realrl: error: ") and err.count("\n") == 1, err
    assert len(err) < 2000
    return err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batch_sise=3", "did you mean batch_size (a whole number)? Every key is in `realrl ppo-math"),
        ("batch_size=many", "batch_size: expected a whole number, got 'many'"),
        ("allocation=*:q2", "allocation: layout 'q2'"),
        ("placements.actor_gen={ranks: [0], tp: 2}", "placements.actor_gen: layout p1d1t2 needs 2 ranks"),
        ("allocation=*:t3", "allocation: actor_gen: t3 must divide the model's 4 attention heads"),
        ("allocation=actor_train:p5,*:d1", "allocation: actor_train: p5 needs at least 5 layers"),
        ("allocation=*:d9", "allocation: actor_gen: d9 needs at least 9 prompts, batch_size=8 gives 8"),
        ("allocation=*:d1,actor_train:d2", "'actor_train:d2' comes too late"),
        ("actor.model.path=~nobody/model", "actor.model.path: ~nobody/model"),
        ("trial=" + "x" * 300, "trial must be a plain folder name"),
        ('runs_dir="a\\0b"', "runs_dir: cannot write to 'a\\x00b/ppo-math': embedded null byte"),
        ("actor.model.path=nowhere", "actor.model.path: nowhere"),
        ("actor.model.path=/dev/null", "model directory, but it is a file; give one"),
        ("critic.model.path=nowhere", "critic.model.path: nowhere"),
        ("data.path=nowhere.jsonl", "data.path: 'nowhere.jsonl': cannot read this dataset"),
        ("data.path=~nobody/rows.jsonl", "data.path: '~nobody/rows.jsonl': cannot read this dataset"),
        (
            "data.path=",
            "data.path: expected a file of rows (.jsonl, .json, .parquet), hf:OWNER/NAME or",
        ),
        ("data.eval_path=nowhere.jsonl", "data.eval_path: 'nowhere.jsonl': cannot read this dataset"),
        ("evals.far.path=nowhere.jsonl", "evals.far.path: 'nowhere.jsonl': cannot read this dataset"),
        ("evals.far.n=2", "evals.far.path: expected the set's problems, like data.path, got none"),
        ("evals={few: {path: sums, n: 2}}", "evals.few.n: 2 answers at temperature 0 would all be the same"),
        (
            "evals={long: {path: sums, max_new_tokens: 256}}",
            "that and evals.long.max_new_tokens=256 exceeds the 256 tokens",
        ),
        ("evals={same: {path: sums, examples: nowhere.jsonl}}", "evals.same.examples: 'nowhere.jsonl'"),
        (
            "evals={many: {path: sums, n: 100000, temperature: 1}}",
            "evals.many.n: 30 problems of 100000 answers are 3000000, but at most 262144",
        ),
        ("evals={some: {path: sums, fields: {answer: x}}}", "unknown name 'answer'"),
        ("keep_best=some/avg@4", "keep_best: expected true, false or SET/METRIC with one of the sets"),
        ("keep_best=held_out/reward", "keep_best: 'held_out/reward' is evaluated only at the start and"),
        (
            "generation.max_new_tokens=256",
            "that and generation.max_new_tokens=256 exceeds the 256 tokens",
        ),
        (
            "actor.optimizer.offload=true",
            "actor.optimizer.offload: true needs device: cuda; with device: cpu the optimizer's states",
        ),
        (
            "max_staleness=1",
            "max_staleness: actor_gen and actor_train share rank 0, so neither goes on while the other does",
        ),
        (
            "generation.interruptible=true",
            "generation.interruptible: with max_staleness=0 nothing trains while responses are generated",
        ),
        ("reward=nowhere.py:f", "reward: nowhere.py is no file; give the path of a Python file"),
        (
            "reward=grader",
            "reward: expected `math`, `gym`, `model`, `judge` or a path/to/file.py:function, got 'grader'",
        ),
        (
            "reward={}",
            "reward: expected `math`, `gym`, `format`, `model`, `judge`, a path/to/file.py:function, or several",
        ),
        ("reward=model", "reward_model is for the reward `model`: give both, as reward=model"),
        ("reward={math: many}", "reward: expected text or names, each with a number, got"),
        ("batch_size=1000000000000000000", "batch_size must be at most 262144, got 1000000000000000000"),
        (
            "batch_size=90000",
            "batch_size: 90000 rows of 8 samples are 720000 samples a step, but at most",
        ),
        ("ppo.group_size=1000000000", "ppo.group_size must be at most 65536, got 1000000000"),
        ("num_steps=1" + 400 * "0", "num_steps: expected a number of at most 64 bits, got 1000"),
        ("call_timeout_s=1e300", "call_timeout_s must be at most 1000000000, got 1e+300"),
        ("data.gym.size=1000000000000", "data.gym.size must be at most 10000000, got 1000000000000"),
        ("data.path=/" + "x" * 6000, "xxx': cannot read this dataset (File name too long); give"),
        ("runs_dir=/" + "x" * 6000, "/ppo-math/trial/summary.json: File name too long; give another path"),
        ("reward=/" + "x" * 6000 + ".py:f", "File name too long; give another path"),
        ("--config=/" + "x" * 6000, "xxx: cannot be read: File name too long; give the path of a YAML file"),
        ("allocation=" + "(" * 100_000, "((((…(((("),
        ("data.path=caf\udce9.jsonl", r"data.path=caf\udce9.jsonl: expected an argument in UTF-8"),
        ("--no-such-option", "--no-such-option: unknown option; see `realrl train --help`"),
        ("--dry-rum", "--dry-rum: unknown option; did you mean --dry-run?"),
        ("--config=nowhere.yaml", "nowhere.yaml: cannot be read"),
    ],
)
def test_refused_with_a_message(cli, override, message):
    assert message in refused(cli(override))


def test_more_ranks_than_samples_in_a_minibatch(cli):
    """A rank without samples in some mini-batch would have nothing to train on."""
    overrides = ("ppo.group_size=2", "ppo.num_minibatches=8", "allocation=actor_train:d3,*:d1")
    assert "d3 needs at least 3 samples in each of 8 mini-batches" in refused(cli(*overrides))


def test_vllm_cannot_be_interrupted(cli):
    overrides = ("max_staleness=1", "allocation=gen.d1+p1", "generation.engine=vllm")
    message = refused(cli(*overrides, "generation.interruptible=true"))
    assert "generation.interruptible: vllm cannot take weights in the midst of responses" in message


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("x = 1", "mine.py has no function 'f'; it has none"),
        ("def g(*_): return 1", "mine.py has no function 'f'; it has g"),
        ("1 / 0", "mine.py cannot be loaded (ZeroDivisionError: division by zero); mend it"),
        (
            "def f(prompt, response): return 1",
            "mine.py:f takes (prompt, response), expected a function that can be called as f(prompt,",
        ),
        (
            "def f(prompt, response, solutions, model): return 1",
            "f takes (prompt, response, solutions, model)",
        ),
        (
            "def f(*, prompt, response, solutions): return 1",
            "f takes (*, prompt, response, solutions), expected",
        ),
        (
            "async def f(question): return 1",
            "mine.py:f takes (question), expected a function that can be called as f(prompt, response,"
            " solutions), f(sample) or f(samples), whose first parameter has this name",
        ),
    ],
)
def test_bad_reward_functions(cli, tmp_path, code, message):
    (tmp_path / "mine.py").write_text(code)
    assert message in refused(cli(f"reward={tmp_path / 'mine.py'}:f"))


def test_ranks_without_a_call(cli):
    message = refused(cli("placements.reward={ranks: [5]}"))
    assert "3 of the ranks 0 to 5 run no call (first: 2)" in message


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([json.dumps(ROW), "{oops"], "rows.jsonl:2"),
        ([json.dumps({**ROW, "solutions": {"2": 2}})], "rows.jsonl:1"),
        ([json.dumps({"query_id": "1", "prompt": "1"})], "rows.jsonl:1"),
        ([json.dumps({**ROW, "prompt": "1 + " * 100})], "rows.jsonl:1"),
        ([], "data.path: "),
        ([json.dumps({**ROW, "prompt": "1" * 254})], "rows.jsonl:1 has 254 tokens; that and generation."),
    ],
)
def test_bad_data(cli, tmp_path, lines, message):
    """Malformed lines and too long prompts are named by file and line; an empty file is refused."""
    (tmp_path / "rows.jsonl").write_text("".join(line + "\n" for line in lines))
    limit = "data.max_prompt_tokens=256"
    assert message in refused(cli(f"data.path={tmp_path / 'rows.jsonl'}", limit))


@pytest.mark.parametrize("other", ["rows.jsonl", "../{}/rows.jsonl", "link.jsonl"])
def test_evaluation_on_the_training_rows(cli, tmp_path, other):
    """The same file under any name."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(ROW) + "\n")
    (tmp_path / "link.jsonl").symlink_to(rows)
    overrides = (f"data.path={rows}", f"data.eval_path={tmp_path / other.format(tmp_path.name)}")
    assert "data.eval_path: expected rows held out from training" in refused(cli(*overrides))


def broken(model, directory, name, text):
    """A copy of the model with one file written over, or left out."""
    shutil.copytree(model, directory)
    (directory / name).unlink()
    if text is not None:
        (directory / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return directory


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", None, "actor.model.path: "),
        ("config.json", "{", "config.json: Input data was truncated; put a whole copy of that file"),
        ("config.json", '{"a":' * 1_000_000, "config.json: it is nested too deeply"),
        ("config.json", "[]", "config.json: Expected `object`, got `array`"),
        ("config.json", b'{"model_type": "ll\xff"}', "config.json: 'utf-8' codec can't decode byte 0xff"),
        ("config.json", '{"model_type": "llama"}', "config.json: Object missing required field `vocab_size`"),
        ("config.json", '{"model_type": "bert"}', "gemma2, gpt2, got 'bert'"),
        ("model.safetensors", None, "actor.model.path: "),
        ("model.safetensors", "rubbish", "actor.model.path: "),
        ("tokenizer.json", "{", "actor.model.path: "),
        ("tokenizer.json", "{}", "its tokenizer cannot be loaded"),
    ],
)
def test_a_broken_model_directory(cli, model, tmp_path, name, text, message):
    directory = broken(model, tmp_path / "broken", name, text)
    assert message in refused(cli(f"actor.model.path={directory}"))


def test_a_model_without_a_tokenizer(cli, model, tmp_path):
    """Its message is ours: that of transformers says nothing of what is missing."""
    directory = broken(model, tmp_path / "broken", "tokenizer.json", None)
    (directory / "tokenizer_config.json").unlink()
    message = refused(cli(f"actor.model.path={directory}"))
    assert "its tokenizer cannot be loaded (it has no tokenizer.json); " in message


def changed(model, directory, name, **keys):
    """A copy of the model with some keys of one JSON file set, or with `...` left out."""
    raw = {**json.loads((model / name).read_text()), **keys}
    text = json.dumps({key: value for key, value in raw.items() if value is not ...})
    return broken(model, directory, name, text)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"hidden_size": "a"}, "config.json: Expected `int`, got `str` - at `$.hidden_size`"),
        ({"num_hidden_layers": 0}, "config.json: Expected `int` >= 1 - at `$.num_hidden_layers`"),
        ({"num_hidden_layers": 10**9}, "config.json: Expected `int` <= 10000 - at `$.num_hidden_layers`"),
        ({"vocab_size": 10**18}, "config.json: Expected `int` <= 2147483647 - at `$.vocab_size`"),
        ({"hidden_size": 10**400}, "config.json: Expected `int` <= 2147483647 - at `$.hidden_size`"),
        ({"max_position_embeddings": None}, "got `null` - at `$.max_position_embeddings`"),
        ({"rope_parameters": {"rope_theta": "x"}}, "at `$.rope_parameters.rope_theta`"),
        ({"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters: yarn needs a factor"),
        ({"eos_token_id": "x", "transformers_version": "5"}, "got `str` - at `$.eos_token_id`"),
        ({"head_dim": ..., "num_attention_heads": 6}, "must divide hidden_size 32, got 6"),
        ({"head_dim": 7}, "must be even, got 7"),
        ({"num_key_value_heads": 3}, "num_key_value_heads must divide the 4 attention heads, got 3"),
        ({"bos_token_id": "x"}, "its tokenizer cannot be loaded"),
        ({"num_hidden_layers": 5}, "no tensor 'model.layers.4."),
        ({"num_hidden_layers": 3}, "with 3 layers, has no place for the weight model.layers.3."),
        ({"intermediate_size": 64}, "of shape [64, 32], got [48, 32]"),
        ({"vocab_size": 60}, "has the token 64, but actor.model.path has only 60 tokens"),
    ],
)
def test_a_config_json_that_does_not_fit(cli, model, tmp_path, keys, message):
    """By its file and key, or against the weights and the tokenizer."""
    found = refused(cli(f"actor.model.path={changed(model, tmp_path / 'changed', 'config.json', **keys)}"))
    assert found.startswith("realrl: error: actor.model.path: ") or "data.path: " in found
    assert message in found


@pytest.mark.parametrize("eos", ["x", 67, [1, 67], -1])
def test_an_end_of_sequence_that_is_no_token(cli, model, tmp_path, eos):
    directory = changed(model, tmp_path / "changed", "generation_config.json", eos_token_id=eos)
    assert "generation_config.json: " in (found := refused(cli(f"actor.model.path={directory}")))
    assert "eos_token_id" in found


@pytest.mark.parametrize("weight_map", [{"a": 3}, ["a"], None])
def test_an_index_that_names_no_files(cli, model, tmp_path, weight_map):
    directory = broken(model, tmp_path / "broken", "model.safetensors", None)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert "is no checkpoint index (Expected `" in refused(cli(f"actor.model.path={directory}"))


@pytest.mark.parametrize(
    "template", ["{% for", "{{ raise_exception('no\nusers') }}", "{{ messages + 1 }}", "{{ a.b.c }}"]
)
def test_a_chat_template_that_fails(cli, model, tmp_path, template):
    directory = tmp_path / "broken"
    shutil.copytree(model, directory)
    (directory / "chat_template.jinja").write_text(template)
    message = refused(cli(f"actor.model.path={directory}", "data.template=chat"))
    assert "data.template: sums: " in message and "set data.template=plain" in message


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
            "the chat template, of messages that begin with 'What is ",
        ),
        ("{{ 10 ** (10 ** 9) }}", "the chat template, of messages that begin with 'What is "),
        ("{{ '%20000000d' % 1 }}", "sums: "),
        ("{{ '%1000000000000000d' % 1 }}", "the tokenizer's chat template fails (MemoryError)"),
    ],
)
def test_a_chat_template_without_end(cli, model, tmp_path, monkeypatch, template, message):
    """In time or in memory: it is ended and named."""
    monkeypatch.setattr("realrl.apps.rows.ROWS_STEP_S", 1.0)
    directory = tmp_path / "endless"
    shutil.copytree(model, directory)
    (directory / "chat_template.jinja").write_text(template)
    assert message in refused(cli(f"actor.model.path={directory}", "data.template=chat"))


def test_a_tokenizer_without_end(cli, model, tmp_path, monkeypatch):
    """Its pattern tries every way to cut words into ones and twos."""
    monkeypatch.setattr("realrl.apps.rows.ROWS_STEP_S", 1.0)
    rules = json.loads((model / "tokenizer.json").read_text())
    rules["pre_tokenizer"]["pattern"] = {"Regex": "(?:a|aa)+!"}
    directory = broken(model, tmp_path / "endless", "tokenizer.json", json.dumps(rules))
    (tmp_path / "rows.jsonl").write_text(json.dumps({**ROW, "prompt": ("a" * 28 + "b") * 10_000}))
    found = refused(cli(f"actor.model.path={directory}", f"data.path={tmp_path / 'rows.jsonl'}"))
    assert "the tokenizer, of texts that begin with 'aaaa" in found and "does not end within 1 s" in found


def test_demonstrations_without_an_end_of_sequence(capsys, model, tmp_path):
    directory = changed(model, tmp_path / "changed", "tokenizer_config.json", eos_token=...)
    code = main(["sft", f"model.path={directory}", "data.path=sums", f"runs_dir={tmp_path}", "--dry-run"])
    assert "its tokenizer has no eos_token" in refused((code, *capsys.readouterr()))


def test_nothing_is_stale_where_nothing_is_generated(capsys, model, tmp_path):
    given = [f"model.path={model}", f"runs_dir={tmp_path}", "data.path=sums", "max_staleness=1", "--dry-run"]
    code = main(["sft", *given])
    assert "max_staleness: this recipe generates nothing" in refused((code, *capsys.readouterr()))


def test_a_reward_model_without_its_head(model, tmp_path, monkeypatch, capsys):
    """It would score everything alike; what `rw` trains may begin without one."""
    monkeypatch.setattr("realrl.runtime.run.run", lambda *_, **__: None)
    given = [
        *SUMS,
        f"actor.model.path={model}",
        f"runs_dir={tmp_path}",
        "reward=model",
        f"reward_model.path={model}",
    ]
    code = main(["ppo-math", *given])
    assert "reward_model.path: " in refused((code, *capsys.readouterr()))
    assert main(["rw", f"model.path={model}", "data.path=sums", f"runs_dir={tmp_path}"]) == 0


def test_models_with_different_vocabularies(cli, tmp_path):
    from tests.tiny import tiny_llama

    other = tiny_llama(tmp_path / "other", vocab=80)
    assert "its vocabulary has 80 tokens, that of actor.model.path 67" in refused(cli(f"ref.path={other}"))


def test_models_with_different_tokenizers(cli, model, tmp_path):
    """Of one size, but two tokens have changed places."""
    text = (model / "tokenizer.json").read_text()
    for old, new in (('"8": ', '"SWAP": '), ('"9": ', '"8": '), ('"SWAP": ', '"9": ')):
        assert text.count(old) == 1
        text = text.replace(old, new)
    other = broken(model, tmp_path / "other", "tokenizer.json", text)
    message = "ref.path: its tokenizer is not that of actor.model.path, they differ in '8'"
    assert message in refused(cli(f"ref.path={other}"))
    assert cli(f"ref.path={shutil.copytree(model, tmp_path / 'same')}", "--dry-run")[0] == 0


def test_outputs_that_cannot_be_written(cli, tmp_path):
    """Also for one who may write everywhere: a file stands where the directory should."""
    (tmp_path / "file").write_text("")
    assert "runs_dir: cannot write to" in refused(cli(f"runs_dir={tmp_path / 'file'}"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "recipe: expected one of ppo-math, ppo, grpo,"),
        (["ppo-maths"], "did you mean ppo-math?"),
        (["batch_size=2"], "recipe: expected one of"),
        (["submit"], "recipe: expected one of"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
    ],
)
def test_a_recipe_that_is_none(capsys, arguments, message):
    assert message in refused((main(arguments), *capsys.readouterr()))


def test_only_clusters_take_submissions(capsys):
    """Here a run starts without the word."""
    assert "set mode=slurm or mode=ray" in refused((main(["submit", "ppo-math"]), *capsys.readouterr()))
