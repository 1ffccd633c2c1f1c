"""The scripts that start AReaL's runs on Ray, dry-run with a tiny model and two problems."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from realrl.api.configure import build_config
from realrl.apps.quickstart import main
from realrl.recipes import RECIPES
from tests.tiny import tiny_llama

ROOT = Path(__file__).parents[2]
NODES = {
    "train_1.5B_n1_on_ray": 1,
    "train_1.5B_n4_on_ray": 4,
    "train_1.5B_n16_on_ray": 16,
    "train_7B_zero_n16_on_ray": 16,
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> list[str]:
    """MODEL DATA ID2INFO MAX_LEN."""
    folder = tmp_path_factory.mktemp("inputs")
    tiny_llama(folder / "model", max_position=32768)
    ids = [str(number) for number in range(1024)]
    rows = [{"query_id": i, "prompt": f"{i}+1="} for i in ids]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "id2info.json").write_text(json.dumps({i: {"solutions": ["1"]} for i in ids}))
    return [*(str(folder / name) for name in ("model", "prompts.jsonl", "id2info.json")), "16384"]


def _run(script: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """With a stand-in for Python, which writes its arguments, a line each."""
    python = folder / "python"
    python.write_text("#!/bin/bash\nprintf '%s\\n' \"$@\"\n")
    python.chmod(0o755)
    command = ["bash", str(ROOT / "scripts" / f"{script}.sh"), *arguments]
    environment = {**os.environ, "PYTHON": str(python)}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("script", NODES)
def test_it_fills_its_nodes_with_the_run_as_it_was_published(script, inputs, tmp_path, capsys):
    """Half of all GPUs generate; but for the inputs, mode and size, the config is the experiment's."""
    module, *arguments = _run(script, tmp_path, *inputs, "--dry-run").stdout.splitlines()[1:]
    assert module == "realrl.apps.quickstart"
    code = main(arguments)
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    count = NODES[script]
    assert f"== Plan\n{8 * count} workers on cuda" in out
    request = f"{count} node{'s' if count > 1 else ''} of 32 CPU, 8 GPU"
    assert out.endswith(f"== Ray's placement group\n{request}\n")
    generates = re.search(r"^actor_gen +generate +actor +\[0-(\d+)\]", out, flags=re.M)
    assert int(generates[1]) + 1 == 4 * count
    _check_config(out, script, inputs)


def _check_config(out: str, script: str, inputs: list[str]) -> None:
    default = RECIPES["ppo-math"].default_config
    text = out.partition("== Config\n")[2].partition("\n== ")[0]
    experiment = "7b-zero" if "7B" in script else "1.5b-16k"
    model, data, solutions, max_len = inputs
    given = [
        f"actor.model.path={model}",
        f"data.path={data}",
        f"data.solutions_path={solutions}",
        f"generation.max_new_tokens={max_len}",
        f"max_tokens_per_microbatch={int(max_len) + 3072}",
    ]
    found = build_config(default, text)
    given.append(f"generation.cache_mib={found.generation.cache_mib}")
    named = ["mode=ray", f"allocation={found.allocation}", f"experiment={found.experiment}"]
    source = ROOT / "experiments" / "areal" / f"{experiment}.yaml"
    assert found == build_config(default, source, [*given, *named], recipe="ppo-math")


def test_it_says_what_it_needs(tmp_path):
    done = _run("train_1.5B_n1_on_ray", tmp_path, "model", "data")
    assert done.returncode != 0 and "give MODEL DATA ID2INFO MAX_LEN" in done.stderr
