"""A new user's first hour, command by command: from a wheel to a model that others open.

    wheel ─▶ doctor ─▶ init ─▶ train, by the defaults ─▶ kill -9 ─▶ resume ─▶ eval ─▶ grade ─▶ report
                                                                      └─▶ transformers, vLLM

The environment is a clean one with the wheel. It sees the packages that the wheel depends on where they are,
as a second copy of torch would cost minutes. The folder is empty; the checkout is on no path.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VLLM = ROOT / ".venv-vllm" / "bin" / "python"
DEADLINE_S = 600
GSM8K_LIKE = [
    ("Tom has 3 apples and buys 4 more. How many apples does he have?", "3 + 4 = <<3+4=7>>7\n#### 7"),
    ("A box holds 6 pens. How many pens are in 2 boxes?", "2 * 6 = <<2*6=12>>12\n#### 12"),
    ("Ann had 9 sweets and ate 5. How many are left?", "9 - 5 = <<9-5=4>>4\n#### 4"),
    ("A bus has 8 seats, and 3 are taken. How many seats are free?", "8 - 3 = <<8-3=5>>5\n#### 5"),
]
"""Problems of our own in the form of GSM8K's files."""
OPEN_BY_TRANSFORMERS = """
import sys, torch, transformers
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
model = transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])
chat = [{"role": "user", "content": "What is 2 plus 3?"}]
ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
print(tokenizer.decode(model.generate(**ids, max_new_tokens=8, do_sample=False)[0]))
"""
OPEN_BY_VLLM = """
import sys
from vllm import LLM, SamplingParams
llm = LLM(sys.argv[1], dtype="float32", enforce_eager=True, max_model_len=256, max_num_seqs=2,
          kv_cache_memory_bytes=64 << 20)
chat = [{"role": "user", "content": "What is 2 plus 3?"}]
(found,) = llm.chat(chat, SamplingParams(max_tokens=8, temperature=0))
print("tokens:", len(found.outputs[0].token_ids))
llm.llm_engine.engine_core.shutdown()
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def desk(tmp_path_factory) -> Path:
    """An empty folder, but for the user's data."""
    folder = tmp_path_factory.mktemp("desk")
    for name, rows in (("train", GSM8K_LIKE), ("test", GSM8K_LIKE[:2])):
        lines = [json.dumps({"question": question, "answer": answer}) for question, answer in rows]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """Variables under which `realrl` is the wheel's."""
    folder = tmp_path_factory.mktemp("clean")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", folder, ROOT], check=True, timeout=DEADLINE_S)
    (wheel,) = folder.glob("realrl-*.whl")
    venv.create(folder / "env", with_pip=False)
    (site,) = (folder / "env").glob("lib/python*/site-packages")
    # A line of a .pth file is a folder that is searched last; an editable install there is not followed.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [sys.executable, "-m", "pip", "--python", folder / "env" / "bin" / "python", "install"]
    subprocess.run([*install, "--quiet", "--no-deps", "--no-index", wheel], check=True, timeout=DEADLINE_S)
    path = f"{folder / 'env' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "REALRL_MATH"))
    }
    return {**kept, "PATH": path}


@pytest.fixture(scope="module")
def realrl(desk, environment) -> Callable[..., str]:
    """Runs a command at the desk; returns what it prints."""

    def run(*arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            ["realrl", *arguments],
            cwd=desk,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE_S,
        )
        assert done.returncode == code, done.stdout
        return done.stdout

    return run


SIZES = ("num_steps=2", "batch_size=2", "ppo.group_size=2", "generation.max_new_tokens=256")
TRAIN = ("--config", "mine.yaml", *SIZES, "recover_every=1")
"""The defaults except for the sizes: a laptop's two steps instead of a pass over the data."""


@pytest.fixture(scope="module")
def trained(desk, environment, realrl) -> tuple[str, Path]:
    """A run that was killed after a step and resumed: what the second start says, and the run's directory."""
    model = "smollm2-135m-instruct"
    realrl("init", "mine", "--recipe", "grpo", "--model", model, "--data", "train.jsonl")
    run = desk / "runs" / "mine" / "trial"
    with (desk / "first.log").open("w") as log:
        first = subprocess.Popen(
            ["realrl", *TRAIN], cwd=desk, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            wait_for(lambda: list(run.glob("recover*/step-1")), first, desk / "first.log")
        finally:
            first.send_signal(signal.SIGKILL)
            first.wait()
    return realrl(*TRAIN), run


def wait_for(is_there: Callable[[], object], process: subprocess.Popen, log: Path) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not is_there():
        assert process.poll() is None and time.monotonic() < deadline_s, log.read_text()
        time.sleep(0.1)


def test_the_wheel_is_what_runs(environment, desk, realrl):
    code = "import realrl; print(realrl.__file__)"
    found = subprocess.run(["python", "-c", code], cwd=desk, env=environment, capture_output=True, text=True)
    assert "clean" in found.stdout and str(ROOT) not in found.stdout
    assert realrl("--version").startswith("realrl ")
    assert "  doctor " in realrl(), "a word alone shows what there is"


def test_the_doctor_finds_nothing_that_stops_a_run(realrl):
    found = json.loads(realrl("doctor", "--json"))
    assert not [finding for finding in found["findings"] if finding["status"] == "problem"]


def test_the_first_step_shows_the_form_and_the_choices(desk, trained):
    """In the tokenizer's chat form, with settings that were chosen for this machine."""
    said = (desk / "first.log").read_text()
    assert "form of prompts: the tokenizer's chat template" in said and "<|im_start|>user" in said
    assert "chosen for " in said and "allocation=" in said


def test_a_killed_run_resumes(trained):
    said, run = trained
    assert "resumes after step 1" in said
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in steps if line["kind"] == "train"] == [0, 1]


def test_responses_are_answers(trained):
    """Not empty, of a sensible length, and mostly ended by the model itself."""
    _, run = trained
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in steps:
        assert line["empty"] == 0 and 10 < line["response_tokens"] < 1000 and line["truncated"] < 0.8


def test_eval_grade_and_report(desk, realrl, trained):
    _, run = trained
    model = str(run / "checkpoints" / "step-2" / "actor")
    small = ("--n", "1", "--max-new-tokens", "96")
    realrl("eval", "--model", model, "--data", "sums", "--limit", "2", "--output", "results", *small)
    assert (desk / "results" / "results.json").is_file()
    lines = [
        {"completion": r"so it is \boxed{7}", "solutions": ["7"]},
        {"completion": "8", "solutions": ["7"]},
    ]
    (desk / "answers.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    verdicts = [json.loads(line)["verdict"] for line in realrl("grade", "answers.jsonl").splitlines()[:2]]
    assert verdicts == ["correct", "wrong"]
    realrl("report", str(run), "-o", "report.html")
    assert "<html" in (desk / "report.html").read_text()[:2000]
    assert "finished" in realrl(*TRAIN), "a third start has nothing to do"


def test_transformers_opens_the_checkpoint(environment, trained):
    _, run = trained
    code = [sys.executable, "-c", OPEN_BY_TRANSFORMERS, str(run / "checkpoints" / "step-2" / "actor")]
    done = subprocess.run(code, capture_output=True, text=True, timeout=DEADLINE_S)
    assert "What is 2 plus 3?" in done.stdout, done.stderr


def test_vllm_opens_the_checkpoint(trained):
    if not VLLM.is_file():
        pytest.skip(f"no {VLLM}: bash scripts/peers.sh vllm makes it")
    _, run = trained
    quiet = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    code = [VLLM, "-c", OPEN_BY_VLLM, run / "checkpoints" / "step-2" / "actor"]
    done = subprocess.run(
        code, capture_output=True, text=True, timeout=DEADLINE_S, env={**os.environ, **quiet}
    )
    assert "tokens: " in done.stdout, done.stderr[-3000:]
