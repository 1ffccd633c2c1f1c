"""Checks a model's weights, by the headers of their files, against its config.json."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.api.recipe import ModelSpec
from realrl.layouts.layout import Layout
from realrl.models.config import DecoderConfig
from realrl.models.families.keys import BUFFERS
from realrl.models.layout import decoder_layout
from realrl.realloc.checkpoint import are_equal, check_tensors, file_layout

_SHOWN = 3
"""Tensors that a note names."""


def check_weights(directory: Path, decoder: DecoderConfig, spec: ModelSpec) -> list[str]:
    """Check that files hold the tensors of a model and of no other; return notes on further tensors.

    A scalar head that is trained may be missing.

    Raises:
        ValueError: a tensor is missing, has another shape or no type of floats, or belongs to another model.
    """
    placement = Placement(DeviceMesh((0,)), ParallelLayout())
    layout = decoder_layout(decoder, placement, spec.head)
    files = file_layout(directory, decoder.names.base)
    check_tensors(directory, files, _required(layout, files, decoder, spec))

    extra = set(files.extents())
    extra.difference_update(layout.extents())
    for tensor in tuple(extra):
        if tensor.endswith(BUFFERS):
            extra.remove(tensor)
    _check_layers(directory, decoder, extra)
    output_head = f"{decoder.names.head}.weight"
    if output_head in extra:
        extra.remove(output_head)
        if spec.head == "lm":
            _check_tied(directory, files, decoder, output_head)
    return _notes(directory, sorted(extra))


def _required(layout: Layout, files: Layout, decoder: DecoderConfig, spec: ModelSpec) -> Layout:
    """Return the layout of the tensors that files must have."""
    head = decoder.scalar_head
    if spec.optimizer is None or head in files.extents():
        return layout
    # A scalar head that is to be trained is initialised by the run.
    patterns = [pattern for pattern in layout.patterns if pattern.tensor != head]
    return Layout(tuple(patterns))


def _check_layers(directory: Path, decoder: DecoderConfig, extra: Collection[str]) -> None:
    """Check that files do not have more layers than the config."""
    before_number = decoder.names.layer.split("*")[0]
    unused = [tensor for tensor in extra if tensor.startswith(before_number)]
    tensor = min(unused, default=None)
    if tensor is not None:
        raise ValueError(
            f"{directory}: its config.json, with {decoder.num_layers} layers, has no place for the weight"
            f" {tensor}; give the config.json that belongs to the weights"
        )


def _check_tied(directory: Path, files: Layout, decoder: DecoderConfig, output_head: str) -> None:
    """Check that an output head in the files is the embedding, as the config says."""
    if not are_equal(directory, files, decoder.embedding, output_head):
        raise ValueError(
            f"{directory}: its config.json has the embedding as the output head (tie_word_embeddings), but"
            f" its files have another {output_head}; set tie_word_embeddings to false there if that is right"
        )


def _notes(directory: Path, extra: list[str]) -> list[str]:
    """Return a note on tensors that are not used, if there are any."""
    if not extra:
        return []
    more = ", …" if len(extra) > _SHOWN else ""
    named = ", ".join(extra[:_SHOWN])
    return [
        f"{directory}: {len(extra)} tensors of its files are left out, as its config.json has no place for"
        f" them: {named}{more}"
    ]
