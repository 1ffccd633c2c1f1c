"""Evaluates a model: `realrl eval --model MODEL --data math500,aime24 --output FOLDER`.

Each problem is answered once greedily and `--n` times by sampling, on any layout, by the recipe `gen`. The
folder gets a file for each benchmark with a line for each problem, `results.json` and `results.md`. The same
command resumes an evaluation that was interrupted. Exit codes: 0 done, 1 the run failed, 2 bad input, 130
stopped by Ctrl-C, 143 stopped by SIGTERM.
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
    from realrl.api.config import ModelConfig, RunConfig
    from realrl.api.recipe import Recipe
    from realrl.apps.preparation import PreparedRun

RESULTS = "results.json"
TABLES = "results.md"
EXPERIMENT = "run"
TRIAL = "gen"
"""Names of the run of `gen`, which is in the folder of results."""
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
"""Replaces the advice of messages to set a key of `gen` that an evaluation fixes."""
SHOWN = ("n", "temperature", "top_p", "top_k", "max_new_tokens", "prompt_type", "dtype", "engine", "seed")
"""Options that results depend on."""


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate a model; return the exit code."""
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
    for benchmark in benchmarks:
        for note in benchmark.notes:
            mention(note)
    try:
        _answer(prepared)
    except RunRefused as error:
        return complain(_in_own_words(str(error)), BAD_INPUT)
    except RunFailed as error:
        return complain(str(error), FAILED)
    model = _model_of(prepared.recipe, prepared.config)
    results = _results(options, model.commit, benchmarks)
    text = render([results, *others])
    document = json.dumps(results, indent=2)
    write_atomically(options.output / RESULTS, document + "\n")
    write_atomically(options.output / TABLES, text)
    show(text)
    return OK


def make_parser() -> Parser:
    """Return the parser of the command's options."""
    parser = Parser(prog="realrl eval", description="Evaluate a model")
    add = parser.add_argument
    add("--model", required=True, help="a model's directory, OWNER/NAME of the Hub, or the demo model's name")
    add("--name", help="the model's name in tables; left out, as --model gives it")
    add("--data", required=True, help=f"of {', '.join(FILES)}, sums, or JSONL files; several with commas")
    add("--data-dir", type=Path, help=f"the folder of the former's files; left out, ${DATA_VARIABLE}")
    add("--limit", type=_count, help="the first so many problems of each alone")
    add("--output", type=Path, required=True, help="the folder for results; one that has some is resumed")
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
    """Return a message about keys of `gen` as one about the options that set them."""
    what, _, advice = message.rpartition("; ")
    for setting, own_advice in _ADVICE.items():
        if setting in advice:
            advice = own_advice
            break
    message = f"{what}; {advice}" if what else advice
    for key, option in _options_by_key().items():
        # A key that is one plain word may also be an ordinary word, except at the beginning.
        begins = r"(?<![\w./-])" if "." in key else "^"
        pattern = rf"{begins}{re.escape(key)}(?![\w./-])"
        message = re.sub(pattern, option, message)
    return message


def _options_by_key() -> dict[str, str]:
    """Return the option that sets each key."""
    options = {}
    for name, key in KEYS.items():
        with_dashes = name.replace("_", "-")
        options[key] = f"--{with_dashes}"
    options["data.path"] = "--data"
    options["recover"] = "--output"
    return options


def _count(text: str) -> int:
    """Return the number that an option gives, at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, got {text}")
    return number


def _prepare(options: argparse.Namespace, benchmarks: Sequence[Benchmark]) -> PreparedRun:
    """Write the problems into the folder, and return the run of `gen`, checked.

    Raises:
        ValueError: the run cannot start, or the folder has another evaluation.
    """
    from realrl.apps.preparation import check_start, prepare
    from realrl.recipes import RECIPES
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
    overrides = [f"{key}={getattr(options, name)}" for name, key in KEYS.items()]
    overrides += options.more
    # The last one wins, so nothing can change these.
    overrides += [f"{key}={value}" for key, value in fixed.items()]
    recipe = RECIPES["gen"]
    config = build_config(recipe.default_config, None, overrides, recipe=recipe.name)
    config = pin(recipe, config)
    is_begun = (options.output / EXPERIMENT / TRIAL).exists()
    model = _model_of(recipe, config)
    directory = resolve_model(model.path, model.commit)
    open_folder(options.output, directory, benchmarks, is_begun=is_begun)
    prepared = prepare(recipe, config)
    return check_start(prepared)


def _model_of(recipe: Recipe, config: RunConfig) -> ModelConfig:
    """Return the model that is evaluated."""
    (spec,) = recipe.models(config).values()
    return spec.model


def _answer(prepared: PreparedRun) -> None:
    """Run `gen`, unless it is done already."""
    from realrl.launch.local import LocalLauncher
    from realrl.launch.workers import imports_of
    from realrl.recipes import RECIPES
    from realrl.runtime.resume import is_done
    from realrl.runtime.run import run

    if not is_done(prepared.config):
        run(
            RECIPES["gen"],
            prepared.config,
            prepared.plan,
            LocalLauncher(device=prepared.config.device, imports=imports_of(prepared.plan)),
            notes=prepared.notes,
        )


def _results(
    options: argparse.Namespace, commit: str | None, benchmarks: Sequence[Benchmark]
) -> dict[str, Any]:
    """Return all numbers, and write each benchmark's problems with their answers to its file.

    `commit` is that of a model of the Hub.
    """
    from realrl.apps.evaluation.scores import problems_of
    from realrl.runtime.run_files import RECORDS

    scores = {}
    records = options.output / EXPERIMENT / TRIAL / RECORDS["pass"]
    with records.open(encoding="utf-8") as file:
        # Answers are in the order of the problems, one benchmark after the other.
        problems = problems_of(map(json.loads, file))
        for benchmark in benchmarks:
            scores[benchmark.name] = _scored(benchmark, problems, options.output)
    return {
        "name": options.name or options.model,
        "model": options.model,
        "commit": commit,
        "settings": _settings(options),
        "benchmarks": scores,
    }


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that results depend on."""
    found = {}
    for name in SHOWN:
        with_dashes = name.replace("_", "-")
        found[with_dashes] = getattr(options, name)
    if options.more:
        found["set"] = " ".join(options.more)
    return found


def _scored(benchmark: Benchmark, problems: Iterator[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """Write the next problems, those of a benchmark, to its file; return their scores."""
    from realrl.apps.evaluation.scores import score

    own = [next(problems) for _ in benchmark.problems]
    text = ""
    for problem in own:
        line = json.dumps(problem, ensure_ascii=False)
        text += line + "\n"
    write_atomically(folder / f"{benchmark.name}.jsonl", text)
    return {"title": benchmark.title, **score(own)}


def _read_results(folder: Path) -> dict[str, Any]:
    """Return the results in another folder.

    Raises:
        ValueError: there are none.
    """
    path = folder / RESULTS
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"--beside: {folder}: cannot read {RESULTS} ({error}); give a folder of results"
        ) from None


if __name__ == "__main__":
    sys.exit(main())
