"""Draws the next token of each sequence, with its log-probabilities.

Shapes: B sequences, one in each lane, H hidden size, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from realrl.api.config import GenerationConfig
from realrl.models.decode_state import DecodeState, Drawn, Lanes
from realrl.models.decoder import Decoder
from realrl.ops.draw import draw_tokens


class Sampler:
    """Draws tokens into the decode state, as a config says. A CUDA graph can capture it."""

    def __init__(
        self, decoder: Decoder, config: GenerationConfig, state: DecodeState, device: torch.device
    ) -> None:
        self._decoder = decoder
        self._config = config
        self._state = state
        enders = (*decoder.config.eos_token_ids, *config.stop_token_ids)
        vocab_size = decoder.config.vocab_size
        # A dict keeps the order, and each token once.
        real = [token for token in dict.fromkeys(enders) if token < vocab_size]
        # Created here, because a graph cannot capture a copy from the host.
        self._enders = torch.tensor(real, dtype=torch.int64, device=device)
        self._bars_enders = config.min_new_tokens > 0 and len(real) > 0

    def __call__(self, hidden: Tensor, lanes: Lanes) -> None:
        """Draw a token for each lane from `[B, H]`; on a single rank, also advance to it."""
        part = self._decoder.logits_part(hidden)
        barred: Barred | None = None
        if self._bars_enders:
            is_short = lanes.counts < self._config.min_new_tokens
            barred = is_short, self._enders
        logits = self._decoder.logits(part)
        numbers = uniforms(lanes.seeds, lanes.counts)
        tokens = draw(logits, numbers, self._config, barred=barred)
        # The whole logits are freed before log-probabilities need as much memory.
        del logits

        raw_logprobs = self._decoder.label_logprobs(part, tokens, 1.0)
        logprobs = raw_logprobs
        temperature = self._config.training_temperature
        if temperature != 1:
            logprobs = self._decoder.label_logprobs(part, tokens, temperature)
        self._state.write(Drawn(tokens, logprobs, raw_logprobs))
        if self._decoder.groups.dp_slice is None:
            self._state.advance(len(hidden))


Barred = tuple[Tensor, Tensor]
"""Rows, bool `[B]`, and the tokens that may not be drawn there, int64."""


def draw(
    logits: Tensor,
    uniforms: Tensor,
    config: GenerationConfig,
    *,
    barred: Barred | None = None,
) -> Tensor:
    """Return a token for each row of logits, by the row's number in [0, 1) of `uniforms`.

    A row's token depends only on its own logits and number, not on the batch around it.

    Shapes: logits `[B, V]`, uniforms `[B]`; returns int64 `[B]`.
    """
    if barred is None:
        return _chosen(logits, uniforms, config)
    rows, tokens = barred
    before = logits.index_select(1, tokens)
    without = before.masked_fill(rows[:, None], float("-inf"))
    logits.index_copy_(1, tokens, without)
    chosen = _chosen(logits, uniforms, config)
    # Log-probabilities, which know no bar, may be computed from the same memory.
    logits.index_copy_(1, tokens, before)
    return chosen


def uniforms(seeds: Tensor, positions: Tensor) -> Tensor:
    """Return a number in [0, 1) for each sample's token: float64 `[B]` from int64 `[B]` each.

    Source: SplitMix64 (Steele et al. 2014, doi:10.1145/2660193.2660195), which gives the n-th number of a
        seed's stream without those before it.
    """
    step = (positions + 1) * _signed(0x9E3779B97F4A7C15)
    state = seeds + step
    state = state ^ _shifted(state, 30)
    state = state * _signed(0xBF58476D1CE4E5B9)
    state = state ^ _shifted(state, 27)
    state = state * _signed(0x94D049BB133111EB)
    state = state ^ _shifted(state, 31)
    # A double holds 53 bits.
    return _shifted(state, 11).double() * 2.0**-53


def _signed(constant: int) -> int:
    """Return the int64 with the same bits."""
    is_negative = constant >> 63
    return constant - (1 << 64) if is_negative else constant


def _shifted(state: Tensor, bits: int) -> Tensor:
    """Shift to the right, and fill with zeros."""
    mask = (1 << (64 - bits)) - 1
    return (state >> bits) & mask


def _chosen(logits: Tensor, uniforms: Tensor, config: GenerationConfig) -> Tensor:
    """Return the token of each row: `[B, V]` and `[B]` to int64 `[B]`."""
    if config.temperature == 0:
        return logits.argmax(dim=-1)
    kept = _top_k(logits, config.top_k)
    return draw_tokens(kept, uniforms, config.temperature, config.top_p)


def _top_k(logits: Tensor, top_k: int) -> Tensor:
    """Return the logits, `[B, V]`, with -inf for tokens that top-k excludes; 0 excludes none."""
    if top_k not in range(1, logits.shape[-1]):
        return logits
    kept, tokens = logits.topk(top_k, dim=-1)
    excluded = torch.full_like(logits, float("-inf"))
    return excluded.scatter(-1, tokens, kept)
