"""What the README and the pages of docs show is what the programs do."""

import re
import shlex
from pathlib import Path

from realrl.api.configure import build_config
from realrl.api.mesh import Placement
from realrl.apps.checks import make_plan
from realrl.program.instructions import Forget, Reallocate
from realrl.program.program import compile_program, home_placements
from realrl.recipes import RECIPES
from realrl.recipes.parts.config import PolicyConfig

ROOT = Path(__file__).parents[2]


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


DEEPSCALER = r"Let's think step by step and output the final answer within \boxed{}."


def blocks(language: str, page: str = "README.md") -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text_of(page), flags=re.M | re.S)
    return [text for named, text in fenced if named == language]


def section(text: str, title: str) -> str:
    return text.partition(f"== {title}\n")[2].partition("\n\n")[0]


def test_its_yaml_and_its_command_print_its_plan(cli, tmp_path, monkeypatch):
    """The command as written, but on the tiny model: the plan is the same, the bytes are not."""
    document, *_ = blocks("yaml", "docs/plans.md")
    (shown,) = [block for block in blocks("", "docs/plans.md") if block.startswith("$ ")]
    command = shlex.split(shown.partition("\n")[0])
    assert command[:2] == ["$", "realrl"]
    (tmp_path / "sums.yaml").write_text(document)
    monkeypatch.chdir(tmp_path)
    code, out, err = cli(*command[2:])
    assert (code, err) == (0, "")
    assert section(out, "Plan") == section(shown, "Plan")
    moves = [
        [line.split("  ")[:3] for line in section(t, "Reallocations").splitlines()] for t in (out, shown)
    ]
    assert moves[0] == moves[1] and len(moves[0]) == 3
    held = [
        [
            line.split("  ")[0]
            for line in section(f"{text}\n\n", "Memory of the fullest rank").splitlines()[1:]
        ]
        for text in (out, shown)
    ]
    assert held[0] == held[1] and len(held[0]) == 7


def test_its_other_overrides_fit():
    text = text_of("docs/start.md") + text_of("docs/plans.md")
    overrides = ["num_steps=50", "actor.optimizer.lr=5e-6", "critic={}", "allocation=gen.d2+p2"]
    for override in overrides:
        assert override.removeprefix("allocation=") in text
    assert build_config(RECIPES["ppo-math"].default_config, None, overrides).critic is not None


def test_its_rewards_can_be_given_so():
    """And the function that it shows can be called."""
    (document,) = blocks("yaml", "docs/start.md")
    config = build_config(RECIPES["ppo-math"].default_config, document)
    assert config.reward == {"math": 1.0, "rewards.py:brevity": 0.1} and config.scores.wrong == -5.0
    namespace: dict = {}
    exec(document.partition("# ")[2].partition("\n")[0], namespace)
    assert namespace["brevity"]("prompt", "four", ["4"]) == -4


def test_its_datasets_can_be_given_so():
    """Each with what its rows are held out by, or with the prompts that it promises."""
    *prompts, sets, file, gym = blocks("yaml", "docs/data.md")
    deepscaler, dapo, qwen3 = [build_config(RECIPES["grpo"].default_config, text).data for text in prompts]
    assert deepscaler.suffix == f" {DEEPSCALER}" and dapo.suffix.endswith('on its own line after "Answer:".')
    assert dapo.prefix.endswith("answer to the problem.\n\n") and qwen3.template_arguments
    config = build_config(RECIPES["grpo"].default_config, sets)
    assert list(config.data.sets) == ["gsm", "hard"] and config.data.held_out_path == "aime.jsonl"
    config = build_config(RECIPES["ppo-math"].default_config, file)
    assert config.data.held_out_path == config.data.path and config.data.held_out_split == "test"
    config = build_config(RECIPES["ppo-math"].default_config, gym)
    assert config.data.held_out_path == config.data.path and config.reward == "gym"


def test_its_algorithms_are_all_there_are():
    """Those that learn from rewards in the first table, and from preferences in the next."""
    named = re.findall(r"^\| `([\w-]+)` \| ", text_of("docs/algorithms.md"), flags=re.M)
    policies = [name for name in RECIPES if isinstance(RECIPES[name].default_config, PolicyConfig)]
    others = ["sft", "rw", "gen"]
    preferences = [name for name in RECIPES if name not in policies + others]
    assert ["ppo-math", *named] == policies + preferences


def test_its_commands_are_there():
    (commands,) = blocks("bash")
    for line in commands.splitlines():
        assert (ROOT / shlex.split(line, comments=True)[1]).is_file()


def test_files_that_pages_name_are_there():
    """Below the project's folder, or below the package."""
    for page in [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")]:
        for named in re.findall(r"`((?:[\w*]+/)+[\w*]+\.(?:py|sh|cpp|cu|h|yaml))`", page.read_text()):
            assert [*ROOT.glob(named), *ROOT.glob(f"realrl/{named}")], f"{page.name} names {named}"


def test_its_folders_are_all_there_are():
    named = set(re.findall(r"^\| `realrl/(\w+)/`", text_of("docs/engine.md"), flags=re.M))
    assert named == {path.parent.name for path in ROOT.glob("realrl/*/__init__.py")}


def test_its_pages_are_there():
    """Every link to a file of the project, from the README and from each page."""
    for page in [ROOT / "README.md", ROOT / "SECURITY.md", *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_hops_of_a_step_are_those_of_its_program():
    """The list in docs/architecture.md, for the plan that it names."""
    config = build_config(
        RECIPES["ppo"].default_config,
        overrides=["actor.model.path=m", "critic.model.path=m", "allocation=actor_gen:d2,*:p2"],
    )
    recipe = RECIPES["ppo"]
    graph, plan = recipe.graph(config), make_plan(recipe, config)
    models = {name: spec.model for name, spec in recipe.models(config).items()}
    program = compile_program(graph, plan, home_placements(graph, plan), models)
    (shown,) = [block for block in blocks("", "docs/architecture.md") if block.startswith("Reallocate  ")]
    words = [line.split() for line in shown.splitlines()]
    assert [line[0] for line in words] == [type(node).__name__ for node in program.instructions]
    for line, node in zip(words, program.instructions, strict=True):
        if isinstance(node, Reallocate):
            assert line[1:5] == [node.model, _short(node.source), "->", _short(node.target)]
        elif not isinstance(node, Forget):
            assert line[1:3] == [node.call, _short(node.placement)]


def _short(placement: Placement) -> str:
    layout = placement.layout
    degrees = {"p": layout.pp, "d": layout.dp, "t": layout.tp}
    return "".join(f"{letter}{degree}" for letter, degree in degrees.items() if degree > 1)


def test_the_excerpts_of_examples_are_in_their_files():
    """Blocks of docs/extending.md whose first line names a file."""
    excerpts = [block.split("\n", 1) for block in blocks("python", "docs/extending.md")]
    found = {first.removeprefix("# "): rest for first, rest in excerpts if first.startswith("# examples/")}
    assert {"examples/model_family.py", "examples/launcher.py"} <= set(found)
    for name, excerpt in found.items():
        assert excerpt in text_of(name), name


def test_the_yaml_of_extensions_can_be_given_so():
    """Each block whose objects exist, after its first, which is tested with the rewards."""
    documents = blocks("yaml", "docs/extending.md")
    for text in ("family:", "launcher:"):
        (document,) = [block for block in documents if text in block]
        build_config(RECIPES["ppo-math"].default_config, document)
