"""Loading a config: what wins, what is refused, and the way back to YAML."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from realrl.api.config import OptimizerConfig, PlacementConfig
from realrl.api.config_keys import config_keys
from realrl.api.configure import build_config, dump_config
from realrl.api.data import DataConfig
from realrl.api.documents import dump, load_value
from tests.api.configs import DEFAULT, SmallConfig, TrainedConfig


def test_nothing_given_is_the_default():
    assert build_config(DEFAULT) == DEFAULT


def test_later_layers_win_and_leave_the_rest():
    """Defaults, then the document, then overrides from left to right; siblings stay."""
    text = "batch_size: 2\nnum_steps: 3\nactor: {optimizer: {lr: 1e-5}}"
    config = build_config(DEFAULT, text, ["num_steps=4", "num_steps=5"])
    assert (config.batch_size, config.num_steps) == (2, 5)
    assert config.actor.optimizer == OptimizerConfig(lr=1e-5, warmup_steps=5)


@pytest.mark.parametrize("written", ["1e-5", "1.0e-05", "0.00001", ".1e-4"])
def test_numbers_in_every_spelling(written):
    """YAML 1.1 reads `1e-5` as text; here it is a number, in a file and on the command line."""
    assert build_config(DEFAULT, f"call_timeout_s: {written}").call_timeout_s == 1e-5
    assert build_config(DEFAULT, None, [f"call_timeout_s={written}"]).call_timeout_s == 1e-5


def test_settings_of_any_kind_by_name():
    """As tasks have them; in a file, on the command line, and on the way back."""
    given = ["gym.parameters.lcm.max_value=3", "fields.prompt=question", "difficulty=[0.5, .inf]"]
    text = "{path: 'gym:lcm', gym: {parameters: {lcm: {names: [a]}}, levels: [0, 1]}}"
    config = build_config(DataConfig(), text, given)
    assert config.gym.parameters == {"lcm": {"names": ["a"], "max_value": 3}} and config.gym.levels == (0, 1)
    assert config.fields == {"prompt": "question"} and config.difficulty == (0.5, float("inf"))
    assert build_config(DataConfig(), dump_config(config)) == config


@pytest.mark.parametrize(
    "written", ["1", "1e-5", "no", "null", "2024-01-01", "*:p2", "a:d2,*:p2", "a=b", "{x"]
)
def test_an_override_of_text_is_taken_as_written(written):
    assert build_config(DEFAULT, None, [f"trial={written}"]).trial == written


@pytest.mark.parametrize(
    ("given", "held_out"),
    [
        ({"path": "sums"}, "sums"),
        ({"path": "sums", "eval_path": ""}, ""),
        ({"path": "a.jsonl"}, ""),
        ({"path": "a.jsonl", "eval_path": "b.jsonl"}, "b.jsonl"),
        ({"path": "a.jsonl", "eval_path": "sums"}, "sums"),
    ],
)
def test_what_is_held_out(given, held_out):
    """Left out, the other side of `sums`; rows of one's own are evaluated on only where one says so."""
    assert DataConfig(**given).held_out_path == held_out


def test_a_prompt_has_room():
    with pytest.raises(ValueError, match="max_prompt_tokens must be at least 1, got 0"):
        DataConfig(max_prompt_tokens=0)


def test_optional_text_can_be_null_again():
    assert build_config(DEFAULT, "note: hello", ["note=null"]).note is None


def test_an_optional_section_starts_from_its_class():
    """Partly given, the rest is its class's defaults; null turns it off; an override turns it on again."""
    assert build_config(DEFAULT, "critic: {}").critic == TrainedConfig()
    config = build_config(DEFAULT, "critic: null", ["critic.optimizer.lr=0.5"])
    assert config.critic == TrainedConfig(optimizer=OptimizerConfig(lr=0.5))
    assert build_config(config, "critic: null").critic is None


def test_placements_by_name():
    config = build_config(DEFAULT, "placements: {a: {ranks: [0, 1], tp: 2}}", ["placements.b={ranks: [2]}"])
    assert config.placements == {"a": PlacementConfig(ranks=(0, 1), tp=2), "b": PlacementConfig(ranks=(2,))}


def test_placements_of_the_default_stay():
    """A file that places one more call leaves the others where they were."""
    default = build_config(DEFAULT, "placements: {a: {ranks: [0, 1], tp: 2}}")
    added = build_config(default, "placements: {b: {ranks: [2]}}").placements
    assert added == {"a": PlacementConfig(ranks=(0, 1), tp=2), "b": PlacementConfig(ranks=(2,))}
    changed = build_config(default, "placements: {a: {ranks: [1, 0]}}").placements
    assert changed == {"a": PlacementConfig(ranks=(1, 0), tp=2)}


def test_overrides_do_not_reach_the_default():
    build_config(DEFAULT, None, ["placements.a={ranks: [0]}", "actor.optimizer.lr=1"])
    assert DEFAULT.placements == {} and DEFAULT.actor.optimizer.lr == 3e-4


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batch_sise=2", ["batch_sise: unknown key", "did you mean batch_size (a whole number)?"]),
        ("actor.optimiser.lr=1", ["actor.optimiser: unknown key", "did you mean actor.optimizer?"]),
        (
            "critic.optimizer.learning=1",
            ["critic.optimizer.learning: unknown key; did you mean critic.optimizer.lr (a number)?"],
        ),
        ("lr=1", ["lr: unknown key", "did you mean actor.optimizer.lr (a number)?"]),
        ("model=tiny", ["model: unknown key; did you mean actor.model.path (text)?"]),
        ("model.path=tiny", ["model: unknown key; did you mean actor.model.path (text)?"]),
        ("max_tokens=1", ["did you mean generation.max_new_tokens (a whole number)?"]),
        ("val_before_train=true", ["did you mean eval_at_start (true or false)?"]),
        ("learning_rate=1", ["did you mean actor.optimizer.lr (a number)?"]),
        ("critic.learning_rate=1", ["did you mean critic.optimizer.lr (a number)?"]),
        ("generation.learning_rate=1", ["did you mean actor.optimizer.lr (a number)?"]),
        ("actor.model={path:x}", ["actor.model.path:x: expected a space", "write it as `path: x`"]),
        ("actor={model: {path:./a:b}}", ["expected a space after the colon", "write it as `path: ./a:b`"]),
        ("batch_size=abc", ["batch_size: expected a whole number, got 'abc'"]),
        ("batch_size=1.5", ["batch_size: expected a whole number, got 1.5"]),
        ("batch_size=true", ["batch_size: expected a whole number, got true"]),
        ("batch_size=", ["batch_size: expected a whole number, got nothing after the ="]),
        ("actor.optimizer.lr=fast", ["actor.optimizer.lr: expected a number, got 'fast'"]),
        ("actor.optimizer.lr=.nan", ["actor.optimizer.lr: expected a number, got nan"]),
        ("actor.optimizer.lr=-1", ["actor.optimizer.lr must not be negative"]),
        ("critic.optimizer.min_lr_ratio=2", ["critic.optimizer.min_lr_ratio must be"]),
        ("actor=3", ["actor: expected a section with the keys model, optimizer, got 3"]),
        ("critic=true", ["critic: expected a section", "got true"]),
        ("device=tpu", ["device: expected 'auto' or 'cpu' or 'cuda', got 'tpu'"]),
        ("placements.a.tp=2", ["placements.a.ranks: missing; expected a list of whole numbers"]),
        ("placements.a={ranks: 3}", ["placements.a.ranks: expected a list of whole numbers, got 3"]),
        ("placements.a={rank: [3]}", ["placements.a.rank: unknown key", "placements.a.ranks?"]),
        ("actor.optimizer.beta1=1", ["actor.optimizer.beta1 must be in [0, 1), got 1.0"]),
        ("actor.optimizer.beta2=-0.1", ["actor.optimizer.beta2 must be in [0, 1), got -0.1"]),
        ("actor.optimizer.eps=0", ["actor.optimizer.eps must be positive"]),
        ("actor.optimizer.weight_decay=-1", ["actor.optimizer.weight_decay must not be negative"]),
        ("generation.temperature=1e-3", ["generation.temperature must be 0 or at least 0.01, got 0.001"]),
        ("generation.temperature=-1", ["generation.temperature must be 0 or at least 0.01"]),
        ("experiment=a/b", ["experiment must be a plain folder name of at most 100 bytes, got 'a/b'"]),
        ("experiment=..", ["experiment must be a plain folder name"]),
        ('trial="a\\0b"', ["trial must be a plain folder name", r"got 'a\x00b'"]),
        ("trial=" + "x" * 101, ["trial must be a plain folder name"]),
        ("trial=" + "é" * 51, ["trial must be a plain folder name"]),
        ("generation.max_new_tokens=0", ["generation.max_new_tokens must be at least 1"]),
        ("batch_size", ["'batch_size': expected key=value"]),
        ("a..b=1", ["'a..b=1': expected key=value"]),
    ],
)
def test_what_does_not_fit_is_refused_by_its_path(override, message):
    with pytest.raises(ValueError) as refused:
        build_config(DEFAULT, None, [override])
    for part in message:
        assert part in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num_steps: 1\nbatch_size: 1\nbatch_size: 2", "run.yaml:3: .*'batch_size' is given twice"),
        ("num_steps: 1\nallocation: *:d1", "run.yaml:2: .*needs quotes"),
        ("a: &x {}\nb: *x", "run.yaml:2: .*aliases"),
        ("actor: [", "run.yaml:"),
        ("- 1", "run.yaml: expected a mapping"),
        ("1: 2", "run.yaml:1: .*expected a name, got 1"),
        ("recipe: other", "recipe: expected 'small', .*got 'other'"),
        ("num_steps: 1\nseed: !!timestamp x", "run.yaml:2: .*tags as .*timestamp are not for configs"),
        ("deterministic: !!bool maybe", "run.yaml:1: .*tags as"),
        ("a: !!python/object/apply:os.getcwd []", "run.yaml:1: .*tags as"),
        ("num_steps: 1\nnote: " + "[" * 300, "run.yaml:2: .*nested more than 32 levels deep$"),
        ("note: " + "{a: " * 100_000, "run.yaml:1: .*nested more than 32 levels deep$"),
        ("num_steps: 1\nseed: " + "9" * 5000, "run.yaml:2: .*5000 digits are too many for a number$"),
        ("num_steps: " + "9" * 300, r"num_steps: .* got 9{200}… \(300 characters\)$"),
        ("actor:\n\toptimizer: {}", "run.yaml:2: .*spaces in place of tabs"),
        ("num_steps: 1\nnote: \x1b[2J", r"run.yaml:2: .*special characters are not allowed \('\\x1b'\)"),
        ("#" * 2_000_000, "run.yaml: expected a YAML file, got more than 1048576 characters"),
        ("a: 1\n---\nb: 1", "run.yaml:2: "),
    ],
)
def test_a_file_that_cannot_be_a_config(tmp_path, text, message):
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        build_config(DEFAULT, file, recipe="small")


def test_a_file_that_is_not_there(tmp_path):
    for path in (tmp_path / "none.yaml", tmp_path, tmp_path / ("x" * 6000), tmp_path / "a\0b"):
        with pytest.raises(ValueError, match=": cannot be read: .*; give the path of a YAML file"):
            build_config(DEFAULT, path)
    with pytest.raises(ValueError, match="/dev/zero: expected a YAML file, got more than"):
        build_config(DEFAULT, Path("/dev/zero"))


def test_a_byte_order_mark_is_no_part_of_a_config(tmp_path):
    (tmp_path / "run.yaml").write_text("\ufeffnum_steps: 7", encoding="utf-8")
    assert build_config(DEFAULT, tmp_path / "run.yaml").num_steps == 7


def test_nothing_after_the_sign_is_an_empty_value():
    """Empty text or an empty list; what cannot be empty says so, and what may be left out is."""
    assert build_config(DataConfig(), None, ["eval_path="]).held_out_path == ""
    assert build_config(DEFAULT, None, ["note="]).note == ""
    assert build_config(DEFAULT, None, ["generation.stop="]).generation.stop == ()
    assert build_config(DEFAULT, None, ["critic="]).critic is None
    with pytest.raises(ValueError, match="batch_size: expected a whole number, got nothing after the ="):
        build_config(DEFAULT, None, ["batch_size="])
    with pytest.raises(ValueError, match="trial must be a plain folder name"):
        build_config(DEFAULT, None, ["trial="])


def test_the_recipe_may_be_named_in_the_file():
    assert build_config(DEFAULT, "recipe: small\nseed: 7", recipe="small").seed == 7
    assert build_config(DEFAULT, "recipe: small\nseed: 7").seed == 7


texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12) | st.sampled_from(
    ["1e-5", "no", "null", "true", "*:p2", "- a", "1_0", "0x1", "~", ".inf", "2024-01-01", "a: b", "#", ""]
)
optimizers = st.builds(
    OptimizerConfig, lr=st.floats(0, 1), eps=st.floats(1e-30, 1e30), weight_decay=st.floats(0, 1e300)
)
configs = st.builds(
    SmallConfig,
    runs_dir=texts,
    note=st.none() | texts,
    allocation=texts,
    seed=st.integers(-(2**63), 2**63 - 1),
    placements=st.dictionaries(
        texts, st.builds(PlacementConfig, ranks=st.lists(st.integers(0, 9)).map(tuple)), max_size=2
    ),
    actor=st.builds(TrainedConfig, optimizer=optimizers),
    critic=st.none() | st.builds(TrainedConfig, optimizer=optimizers),
)


@given(configs)
def test_a_dumped_config_loads_back_equal(config):
    """The way out to YAML and back changes nothing, whatever the texts look like."""
    assert build_config(DEFAULT, dump_config(config, recipe="small"), recipe="small") == config


@given(texts)
def test_text_that_looks_like_something_else_stays_text(text):
    assert load_value(dump({"key": text})) == {"key": text}
    assert yaml.safe_load(dump({"key": 1e-5})) == {"key": 1e-5}, "other readers see the same number"


def test_every_key_is_listed_once():
    paths = [key.path for key in config_keys(SmallConfig)]
    assert len(set(paths)) == len(paths)
    assert {"seed", "placements.NAME.ranks", "critic.optimizer.lr", "generation.top_p"} <= set(paths)
    assert not {"actor", "critic", "placements"} & set(paths)
