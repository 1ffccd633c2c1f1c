"""Evaluates a model: `realrl eval --model MODEL --data math500,aime24 --output FOLDER`.

Each problem is answered once greedily and `--n` times by sampling, on any layout, by the recipe `gen`. The
folder gets a line for each problem in a file for each benchmark, `results.json` and `results.md`. The same
command goes on with an evaluation that was interrupted. Exit codes: 0 done, 1 the run failed, 2 bad input,
130 stopped by Ctrl-C, 143 stopped by SIGTERM.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from realrl.api.configure import build_config
from realrl.apps.command_line import BAD_INPUT, FAILED, OK, Parser, complain, mention, run_command
from realrl.apps.evaluation.benchmarks import DATA_VARIABLE, FILES, Benchmark, load_benchmarks
from realrl.apps.evaluation.inputs import PROBLEMS, open_folder
from realrl.base.files import write_atomically
from realrl.base.terminal import show
from realrl.datasets.templates import TEMPLATES

if TYPE_CHECKING:
    from realrl.apps.preparation import PreparedRun

RESULTS, TABLES = "results.json", "results.md"
EXPERIMENT, TRIAL = "run", "gen"
"""Where in the folder the run of `gen` lies."""
KEYS = {
    "model": "model.path",
    "dtype": "model.dtype",
    "n": "num_samples",
    "temperature": "generation.temperature",
    "top_p": "generation.top_p",
    "top_k": "generation.top_k",
    "max_new_tokens": "generation.max_new_tokens",
    "max_prompt_tokens": "data.max_prompt_tokens",
    "prompt_type": "data.template",
    "seed": "seed",
    "engine": "generation.engine",
    "allocation": "allocation",
    "device": "device",
    "batch_size": "batch_size",
}
"""The key of `gen` that each option sets."""
_ADVICE = {
    "recover=off": "restore that, or give another --output",
    "data.drop_long=true": "give a smaller --max-new-tokens, or leave such problems out",
}
"""A setting of `gen` that an evaluation fixes: what a message that advises to set it says instead."""
SHOWN = ("n", "temperature", "top_p", "top_k", "max_new_tokens", "prompt_type", "dtype", "engine", "seed")
"""Options that results depend on."""


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate a model; returns the exit code."""
    return run_command(_main, argv)


def _main(argv: Sequence[str]) -> int:
    from realrl.apps.evaluation.score_tables import render
    from realrl.runtime.failure import RunFailed, RunRefused

    try:
        options = make_parser().parse_args(list(argv))
        benchmarks = load_benchmarks(options.data.split(","), options.data_dir, options.limit)
        others = [_read_results(folder) for folder in options.beside]
        prepared = _prepare(options, benchmarks)
    except ValueError as error:
        return complain(_in_own_words(str(error)), BAD_INPUT)
    for note in (note for benchmark in benchmarks for note in benchmark.notes):
        mention(note)
    try:
        _answer(prepared)
    except RunRefused as error:
        return complain(_in_own_words(str(error)), BAD_INPUT)
    except RunFailed as error:
        return complain(str(error), FAILED)
    results = _results(options, prepared.config.model.commit, benchmarks)
    text = render([results, *others])
    write_atomically(options.output / RESULTS, json.dumps(results, indent=2) + "\n")
    write_atomically(options.output / TABLES, text)
    show(text)
    return OK


def make_parser() -> Parser:
    parser = Parser(prog="realrl eval", description="Evaluate a model")
    add = parser.add_argument
    add("--model", required=True, help="a model's directory, OWNER/NAME of the Hub, or the demo model's name")
    add("--name", help="the model's name in tables; left out, as --model gives it")
    add("--data", required=True, help=f"of {', '.join(FILES)}, sums, or JSONL files; several with commas")
    add("--data-dir", type=Path, help=f"the folder of the former's files; left out, ${DATA_VARIABLE}")
    add("--limit", type=_count, help="the first so many problems of each alone")
    add(
        "--output", type=Path, required=True, help="the folder for results; one that has some is gone on with"
    )
    setting = partial(_add_setting, parser)
    setting("--n", 32, "sampled answers to each problem, besides the greedy one")
    setting("--temperature", 0.6, "of sampled answers")
    setting("--top-p", 0.95, "the share of probability that tokens are sampled from")
    setting("--top-k", 0, "the number of likely tokens that are sampled from; 0: all")
    setting("--max-new-tokens", 2048, "the longest answer")
    setting("--max-prompt-tokens", 2048, "a longer prompt is refused")
    setting("--prompt-type", "chat", "how prompts are wrapped", choices=("chat", *TEMPLATES))
    setting("--dtype", "bfloat16", "of weights", choices=("float32", "bfloat16"))
    setting("--seed", 1, "of the sampling")
    setting("--engine", "realrl", "what generates answers", choices=("realrl", "vllm"))
    add("--allocation", default="auto", help="the layout, as *:d2 or *:p2; left out, for this machine")
    setting("--device", "auto", "where the model runs", choices=("auto", "cpu", "cuda"))
    setting("--batch-size", 16, "problems that are answered together")
    add("--beside", type=Path, nargs="*", default=[], help="folders of other results, for rows in the table")
    add("--set", dest="more", nargs="*", default=[], help="more keys of gen, as generation.cache_mib=4096")
    return parser


def _add_setting(parser: Parser, name: str, default: Any, about: str, **more: Any) -> None:
    """Add an option whose default the help shows."""
    about = f"{about} (default: {default})"
    parser.add_argument(name, type=type(default), default=default, help=about, **more)


def _in_own_words(message: str) -> str:
    """Return a message on keys of `gen` as one on the options that set them."""
    what, _, advice = message.rpartition("; ")
    advice = next((ours for setting, ours in _ADVICE.items() if setting in advice), advice)
    message = f"{what}; {advice}" if what else advice
    options = {key: f"--{name.replace('_', '-')}" for name, key in KEYS.items()}
    options |= {"data.path": "--data", "recover": "--output"}
    for key, option in options.items():
        # A key that is one plain word is one only where a message begins with it.
        begins = r"(?<![\w./-])" if "." in key else "^"
        message = re.sub(rf"{begins}{re.escape(key)}(?![\w./-])", option, message)
    return message


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {text}")
    return number


def _prepare(options: argparse.Namespace, benchmarks: Sequence[Benchmark]) -> PreparedRun:
    """The run of `gen`, checked, and the folder with its problems. Raises ValueError."""
    from realrl.apps.preparation import check_start, prepare
    from realrl.recipes.gen import GEN
    from realrl.runtime.model_directories import resolve_model
    from realrl.runtime.pins import pin

    fixed = {
        "greedy": "true",
        "recover": "auto",
        "data.path": (options.output / PROBLEMS).resolve(),
        "data.drop_long": "false",
        "runs_dir": options.output,
        "experiment": EXPERIMENT,
        "trial": TRIAL,
    }
    given = {key: getattr(options, name) for name, key in KEYS.items()}
    overrides = [f"{key}={value}" for key, value in given.items()]
    overrides += options.more
    overrides += [f"{key}={value}" for key, value in fixed.items()]
    config = pin(GEN, build_config(GEN.default_config, None, overrides, recipe=GEN.name))
    is_begun = (options.output / EXPERIMENT / TRIAL).exists()
    directory = resolve_model(config.model.path, config.model.commit)
    open_folder(options.output, directory, benchmarks, is_begun=is_begun)
    prepared = prepare(GEN, config)
    return check_start(prepared)


def _answer(prepared: PreparedRun) -> None:
    from realrl.launch.local import LocalLauncher
    from realrl.launch.workers import imports_of
    from realrl.recipes.gen import GEN
    from realrl.runtime.resume import is_done
    from realrl.runtime.run import run

    if not is_done(prepared.config):
        run(
            GEN,
            prepared.config,
            prepared.plan,
            LocalLauncher(device=prepared.config.device, imports=imports_of(prepared.plan)),
            notes=prepared.notes,
        )


def _results(
    options: argparse.Namespace, commit: str | None, benchmarks: Sequence[Benchmark]
) -> dict[str, Any]:
    """All numbers; on the way each benchmark's problems are written to its file.

    `commit` is that of a model of the Hub.
    """
    from realrl.apps.evaluation.scores import problems_of
    from realrl.runtime.run_files import RECORDS

    with (options.output / EXPERIMENT / TRIAL / RECORDS["pass"]).open(encoding="utf-8") as file:
        problems = problems_of(map(json.loads, file))
        return {
            "name": options.name or options.model,
            "model": options.model,
            "commit": commit,
            "settings": _settings(options),
            "benchmarks": {
                benchmark.name: _scored(benchmark, problems, options.output) for benchmark in benchmarks
            },
        }


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """Those that results depend on."""
    more = {"set": " ".join(options.more)} if options.more else {}
    return {name.replace("_", "-"): getattr(options, name) for name in SHOWN} | more


def _scored(benchmark: Benchmark, problems: Iterator[dict[str, Any]], folder: Path) -> dict[str, Any]:
    from realrl.apps.evaluation.scores import score

    own = [next(problems) for _ in benchmark.problems]
    lines = (json.dumps(problem, ensure_ascii=False) + "\n" for problem in own)
    write_atomically(folder / f"{benchmark.name}.jsonl", "".join(lines))
    return {"title": benchmark.title, **score(own)}


def _read_results(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / RESULTS).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--beside: {folder}: cannot read {RESULTS} ({error}); give a folder of results"
        ) from None


if __name__ == "__main__":
    sys.exit(main())
