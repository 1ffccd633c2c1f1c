"""Reads the description of a decoder from a Hugging Face model directory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from realrl.base.user_files import load_from_file
from realrl.models.config import DecoderConfig
from realrl.models.families.gemma import GEMMA
from realrl.models.families.gemma2 import GEMMA2
from realrl.models.families.gpt2 import GPT2
from realrl.models.families.keys import Family, TokenIds, token_ids
from realrl.models.families.llama import LLAMA
from realrl.models.families.mistral import MISTRAL
from realrl.models.families.qwen2 import QWEN2
from realrl.models.families.qwen3 import QWEN3

FAMILIES: dict[str, Family] = {
    "llama": LLAMA,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "mistral": MISTRAL,
    "gemma": GEMMA,
    "gemma2": GEMMA2,
    "gpt2": GPT2,
}
"""By the `model_type` of `config.json`."""

File = TypeVar("File")


class _Kind(msgspec.Struct):
    """The keys of `config.json` that tell the kind of model."""

    model_type: str | None = None
    quantization_config: Any = None
    compression_config: Any = None


class _Generation(msgspec.Struct):
    """The keys of `generation_config.json` that are read here."""

    eos_token_id: TokenIds | UnsetType = UNSET


def load_family(reference: str | None, setting: str = "family") -> Family | None:
    """Return the family that `path/to/file.py:NAME` names; None for None.

    Args:
        setting: The dotted path of the setting that has the reference, for messages.

    Raises:
        ValueError: the file cannot be run, or has no such family.
    """
    if reference is None:
        return None
    found = load_from_file(reference, setting=setting, what="Family", fits=_is_family)
    assert isinstance(found, Family), "load_from_file returns what fits"
    return found


def _is_family(value: object) -> bool:
    return isinstance(value, Family)


def is_known_family(directory: Path | str) -> bool:
    """Return whether the model in a Hugging Face directory is of a family in `FAMILIES`."""
    return _decode(Path(directory) / "config.json", _Kind).model_type in FAMILIES


def read_family(directory: Path | str, own: Family | None = None) -> Family:
    """Return the family of the model in a Hugging Face directory; `own`, if the user names one.

    Raises:
        ValueError: no `config.json` there, a quantised model, or no family of ours.
    """
    file = Path(directory) / "config.json"
    if not file.is_file():
        raise ValueError(f"no config.json in {directory}: give a Hugging Face model directory")
    found = _decode(file, _Kind)
    _check_not_quantised(found, file)
    if own is not None:
        return own
    kind = found.model_type
    if kind not in FAMILIES:
        raise ValueError(
            f"{file}: model_type must be one of {', '.join(FAMILIES)}, got {kind!r}; for another one, name a"
            " family of your own as the model's `family`"
        )
    return FAMILIES[kind]


def read_decoder_config(directory: Path | str, own: Family | None = None) -> DecoderConfig:
    """Return the decoder that a Hugging Face model directory holds.

    Args:
        own: The model's family, if the user names one; else `model_type` says it.

    Raises:
        ValueError: there is no `config.json`, one of its keys does not fit, or the family is not supported.
    """
    family = read_family(directory, own)
    file = Path(directory) / "config.json"
    keys = _decode(file, family.keys)
    try:
        decoder = family.decoder(keys)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None

    eos_token_ids = _eos_token_ids(decoder, file)
    return replace(decoder, names=family.names, eos_token_ids=eos_token_ids)


def _check_not_quantised(found: _Kind, file: Path) -> None:
    configs = {
        "quantization_config": found.quantization_config,
        "compression_config": found.compression_config,
    }
    for key, given in configs.items():
        if not given:
            continue
        method = given.get("quant_method") if isinstance(given, dict) else None
        how = f" ({method})" if isinstance(method, str) else ""
        raise ValueError(
            f"{file}: {key}: quantised models{how} are not supported; give the model that was quantised"
        )


def _decode(file: Path, file_type: type[File]) -> File:
    """Return the keys of a JSON file that `file_type` has."""
    try:
        text = file.read_text(encoding="utf-8")
        return msgspec.json.decode(text, type=file_type)
    except msgspec.ValidationError as error:
        raise ValueError(f"{file}: {error}") from None
    except (ValueError, RecursionError) as error:
        what = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"{file}: {what}; put a whole copy of that file there") from None


def _eos_token_ids(decoder: DecoderConfig, file: Path) -> tuple[int, ...]:
    """Return the tokens of `generation_config.json` if it has the key, else those of `config.json`."""
    ids = decoder.eos_token_ids
    generation_file = file.with_name("generation_config.json")
    if generation_file.is_file():
        given = _decode(generation_file, _Generation).eos_token_id
        if given is not UNSET:
            file = generation_file
            ids = token_ids(given)

    if any(token >= decoder.vocab_size for token in ids):
        raise ValueError(
            f"{file}: eos_token_id must be below vocab_size {decoder.vocab_size}, got {list(ids)}"
        )
    return ids
