"""The directories of models: the user's, those in the cache of the Hugging Face Hub, and the demo model's."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from realrl.base.hub.fetch import fetch
from realrl.base.hub.repo import Repo, parse_repo
from realrl.base.hub.request import Reply
from realrl.datasets.demo import DEMO_MODEL, demo_model_directory
from realrl.realloc.checkpoint import INDEX_FILE, SINGLE_FILE, named_files

_REASON = 500
"""The most characters that are shown of another library's message."""
_ADAPTER_FILE = "adapter_config.json"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")
DESCRIPTION = (
    *("config.json", "generation_config.json", INDEX_FILE, _ADAPTER_FILE),
    *(*_TOKENIZER_FILES, "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "vocab.txt", "chat_template.json", "chat_template.jinja"),
)
"""Every file that is read of a model except its weights. Code and pickles are never downloaded."""
_BELOW_RUNS = ("*", "*/*", "checkpoints/*/*")
"""Where models are below a checkpoint, a run's `checkpoints`, and a run's directory."""


def resolve_model(path: str | Path, commit: str | None = None, *, weights: bool = True) -> Path:
    """Return the directory of a model that a config names; missing files of the Hub are downloaded.

    `commit` is the commit of a model on the Hub; left out, its revision is looked up. Without `weights`, the
    directory of a model on the Hub may have only its description.

    Raises:
        ValueError: it is no Hugging Face model directory, and the Hub has no such model for us.
    """
    if repo := hub_repo(path):
        return _from_hub(repo, commit, weights=weights)
    if commit:
        raise ValueError(
            f"{path} is no model of the Hugging Face Hub here, so that commit {commit} is not of it; leave"
            " `commit` out"
        )
    if str(path) == DEMO_MODEL:
        return demo_model_directory()
    directory = Path(os.path.expanduser(path))
    if not os.path.isdir(directory):
        what = "it is a file" if os.path.exists(directory) else "there is no such directory"
        raise ValueError(
            f"{path}: expected a Hugging Face model directory, but {what}; give one, a"
            f" model of the Hugging Face Hub as OWNER/NAME, or {DEMO_MODEL} for the demo model"
        )
    _check_config(directory, str(path))
    return directory


def hub_repo(path: str | Path) -> Repo | None:
    """Return the model of the Hub that `path` names; None for anything else. A directory takes precedence."""
    if str(path) == DEMO_MODEL or os.path.exists(os.path.expanduser(path)):
        return None
    return parse_repo("model", str(path))


def commit_of(repo: Repo) -> str:
    """Return the commit that a model's revision is now; its description is downloaded too.

    Raises:
        ValueError: the Hub has no such model for us.
    """
    try:
        return fetch(repo, DESCRIPTION).commit
    except ValueError as error:
        raise ValueError(f"{repo}: {error}{_no_directory(repo)}") from None


def bytes_to_download(repo: Repo, commit: str) -> int:
    """Return how many bytes of a model's weights are not in the cache.

    Raises:
        ValueError: the Hub is out of reach, or the model has no weights that can be read.
    """
    return _fetch_weights(repo, commit, _description(repo, commit), only_plan=True)


def load_tokenizer(directory: Path) -> Any:
    """Return the tokenizer in a model's directory; code in that directory is not run.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # tokenizers raises plain ones, and panics, which are no Exception
        reason = " ".join(str(error).split())[:_REASON]
        if "trust_remote_code" in reason:
            reason = "it is code of its own, which is never run"
        elif not has_tokenizer(directory):
            reason = f"it has no {_TOKENIZER_FILES[0]}"
        raise ValueError(
            f"{directory}: its tokenizer cannot be loaded ({reason}); mend the tokenizer's files there, or"
            " give a model whose tokenizer transformers knows"
        ) from None


def has_tokenizer(directory: Path) -> bool:
    """Return whether a model's directory has a tokenizer of its own."""
    return any((directory / name).is_file() for name in _TOKENIZER_FILES)


def _from_hub(repo: Repo, commit: str | None, *, weights: bool) -> Path:
    commit = commit or commit_of(repo)
    directory = _description(repo, commit)
    _check_config(directory, str(repo))
    if weights:
        _fetch_weights(repo, commit, directory)
    return directory


def _fetch_weights(repo: Repo, commit: str, directory: Path, *, only_plan: bool = False) -> int:
    """Download a model's weights unless `only_plan`; return how many bytes were missing."""
    names: tuple[str, ...] = (SINGLE_FILE,)
    if (directory / INDEX_FILE).is_file():
        names = tuple(named_files(directory))
    reply = _fetch(repo, names, commit, only_plan=only_plan)
    for name in names:
        if name not in reply.sizes:
            raise ValueError(
                f"{repo}: it has no {name}; weights are read from safetensors files alone, never from"
                " pickles (*.bin) or GGUF files; name a revision that has them, as OWNER/NAME@refs/pr/1,"
                " or convert it"
            )
    return reply.missing_bytes


def _description(repo: Repo, commit: str) -> Path:
    """Return the folder of a commit, with everything that is read of a model except its weights."""
    return Path(_fetch(repo, DESCRIPTION, commit).directory)


def _fetch(repo: Repo, names: tuple[str, ...], commit: str, *, only_plan: bool = False) -> Reply:
    try:
        return fetch(repo, names, commit=commit, only_plan=only_plan)
    except ValueError as error:
        raise ValueError(f"{repo}: {error}") from None


def _check_config(directory: Path, named: str) -> None:
    """Check that a directory has a whole model's config.

    Raises:
        ValueError: it has not, or it has an adapter.
    """
    has_config = (directory / "config.json").is_file()
    if (directory / _ADAPTER_FILE).is_file():
        raise _is_adapter(directory, named, has_config=has_config)
    if has_config:
        return
    within = _model_within(directory)
    give = "give one, or" if within is None else f"did you mean {within}? Else give"
    raise ValueError(
        f"{named}: expected a Hugging Face model directory, but it has no config.json; {give} a model of the"
        f" Hugging Face Hub as OWNER/NAME, or {DEMO_MODEL} for the demo model"
    )


def _is_adapter(directory: Path, named: str, *, has_config: bool) -> ValueError:
    base = _base_of_adapter(directory)
    what = "there is an adapter" if has_config else "this is an adapter"
    besides = ", or remove that file to take the model without it" if has_config else ""
    return ValueError(
        f"{named}: {what} of {base} ({_ADAPTER_FILE}), not a whole model; merge it into that by peft,"
        " PeftModel.from_pretrained(...).merge_and_unload().save_pretrained(FOLDER), and give that"
        f" folder{besides}"
    )


def _model_within(directory: Path) -> Path | None:
    """Return the model that was written last below a checkpoint or a run; None if there is none."""
    found: list[Path] = []
    for place in _BELOW_RUNS:
        found += directory.glob(f"{place}/config.json")
    latest = max(found, key=lambda path: path.stat().st_mtime_ns, default=None)
    return None if latest is None else latest.parent


def _base_of_adapter(directory: Path) -> str:
    try:
        found = json.loads((directory / _ADAPTER_FILE).read_text(encoding="utf-8"))
        return str(found["base_model_name_or_path"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return "another model"


def _no_directory(repo: Repo) -> str:
    """Say that a directory was looked for too, and name one that may be meant."""
    _, _, name = repo.name.partition("/")
    near = f", but there is ./{name}" if os.path.isdir(name) else ""
    return f" (no directory here has that name{near})"
