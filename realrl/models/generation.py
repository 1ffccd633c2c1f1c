"""Generation with a key/value cache, over any (pp, tp) of one data-parallel share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from realrl.api.batch import Sample, pack
from realrl.api.config import GenerationConfig
from realrl.models.decoder import Decoder, positions_of
from realrl.models.sampling import sample, sampling_logprobs
from realrl.ops.attention import cached_attention, packed_attention
from realrl.parallel.pipeline import StageLink


class KVCache:
    """Keys and values of this stage's layers: `[B, K, S, D]` a layer, B sequences, S places."""

    def __init__(self, decoder: Decoder, num_sequences: int, num_places: int) -> None:
        embed = next(iter(decoder.weights.values()))
        shape = (num_sequences, decoder.num_kv_heads, num_places, decoder.config.head_dim)
        self.keys = {layer: embed.new_zeros(shape) for layer in decoder.layers}
        self.values = {layer: embed.new_zeros(shape) for layer in decoder.layers}

    def keep(self, indices: Tensor) -> None:
        """Drop every sequence but those at `indices`."""
        for tensors in (self.keys, self.values):
            for layer, tensor in tensors.items():
                tensors[layer] = tensor[indices]


@dataclass
class Responses:
    """What was generated, one list a sequence."""

    tokens: list[list[int]] = field(default_factory=list)
    logprobs: list[list[float]] = field(default_factory=list)


@torch.no_grad()
def generate(
    decoder: Decoder,
    link: StageLink,
    prompts: Sequence[Tensor],
    uniforms: Tensor,
    config: GenerationConfig,
) -> Responses:
    """Continue each prompt until an end-of-sequence token or `max_new_tokens`.

    Shapes: prompts 1-D int64 each; uniforms `[B, max_new_tokens]`.
    Collective over the data-parallel slice; every rank of it returns the same.
    """
    responses = Responses()
    for start in range(0, len(prompts), config.max_sequences):
        chosen = slice(start, start + config.max_sequences)
        part = _Round(decoder, link, prompts[chosen], uniforms[chosen], config).run()
        responses.tokens += part.tokens
        responses.logprobs += part.logprobs
    return responses


class _Round:
    """Sequences decoded together from their prompts to their ends."""

    def __init__(
        self,
        decoder: Decoder,
        link: StageLink,
        prompts: Sequence[Tensor],
        uniforms: Tensor,
        config: GenerationConfig,
    ) -> None:
        self.decoder, self.link, self.prompts, self.config = decoder, link, prompts, config
        self.device = next(iter(decoder.weights.values())).device
        self.uniforms = uniforms.to(self.device)
        self.live = torch.arange(len(prompts))
        self.lengths = torch.tensor([len(p) for p in prompts])
        self.cache = KVCache(decoder, len(prompts), int(self.lengths.max()) + config.max_new_tokens)
        self.responses = Responses([[] for _ in prompts], [[] for _ in prompts])

    def run(self) -> Responses:
        hidden = self._prefill()
        for position in range(self.config.max_new_tokens):
            tokens = self._choose(hidden, position)
            if not len(self.live) or position == self.config.max_new_tokens - 1:
                break
            hidden = self._decode(tokens)
        return self.responses

    def _prefill(self) -> Tensor:
        """Each distinct prompt once, its keys and values copied to all who share it."""
        distinct: dict[tuple[int, ...], int] = {}
        which = torch.tensor([distinct.setdefault(tuple(p.tolist()), len(distinct)) for p in self.prompts])
        packed = pack(
            [Sample(i, i) for i in range(len(distinct))],
            {"prompts": [torch.tensor(prompt) for prompt in distinct]},
        )
        starts = packed.cu_seqlens.tolist()

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            for sequence, source in enumerate(which.tolist()):
                tokens = slice(starts[source], starts[source + 1])
                length = tokens.stop - tokens.start
                self.cache.keys[layer][sequence, :, :length] = k[tokens].transpose(0, 1)
                self.cache.values[layer][sequence, :, :length] = v[tokens].transpose(0, 1)
            return packed_attention(q, k, v, packed.cu_seqlens)

        hidden = self._through_stage(packed["prompts"], positions_of(packed.cu_seqlens), attend)
        return hidden[(packed.cu_seqlens[1:].long() - 1)[which].to(self.device)]

    def _decode(self, tokens: Tensor) -> Tensor:
        """One token a live sequence, at its own place."""
        rows = torch.arange(len(tokens), device=self.device)
        places = self.lengths.to(self.device)
        longest = int(self.lengths.max()) + 1

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = self.cache.keys[layer], self.cache.values[layer]
            keys[rows, :, places], values[rows, :, places] = k, v
            return cached_attention(q, keys[:, :, :longest], values[:, :, :longest], places + 1)

        hidden = self._through_stage(tokens, self.lengths, attend)
        self.lengths = self.lengths + 1
        return hidden

    def _through_stage(self, ids: Tensor, positions: Tensor, attend) -> Tensor:
        received = self.link.receive_hidden(len(ids))
        hidden = self.decoder.forward(ids.to(self.device), received, positions.to(self.device), attend)
        self.link.send_hidden(hidden)
        self.link.finish()
        return hidden

    def _choose(self, hidden: Tensor, position: int) -> Tensor:
        """Sample, write down, and drop the sequences that ended; returns the others' tokens."""
        tokens, logprobs = self._agree(*self._sampled(hidden, position))
        eos = self.decoder.config.eos_token_ids
        for sequence, token, logprob in zip(
            self.live.tolist(), tokens.tolist(), logprobs.tolist(), strict=True
        ):
            self.responses.tokens[sequence].append(token)
            self.responses.logprobs[sequence].append(logprob)
        going = torch.tensor([token not in eos for token in tokens.tolist()], dtype=torch.bool).nonzero()[
            :, 0
        ]
        if len(going) < len(self.live):
            self.live, self.lengths, tokens = self.live[going], self.lengths[going], tokens[going]
            self.cache.keep(going.to(self.device))
        return tokens

    def _sampled(self, hidden: Tensor, position: int) -> tuple[Tensor, Tensor]:
        if not self.decoder.is_last:
            return torch.empty(len(self.live), dtype=torch.long), torch.empty(len(self.live))
        logits = self.decoder.logits(hidden)
        allowed = logits
        if position < self.config.min_new_tokens:
            allowed = logits.clone()
            allowed[:, list(self.decoder.config.eos_token_ids)] = float("-inf")
        tokens = sample(allowed, self.uniforms[self.live.to(self.device), position], self.config)
        return tokens, sampling_logprobs(logits, tokens, self.config)

    def _agree(self, tokens: Tensor, logprobs: Tensor) -> tuple[Tensor, Tensor]:
        """Every rank of the slice takes what the last stage's first rank drew."""
        groups = self.decoder.groups
        if groups.dp_slice is None:
            return tokens.cpu(), logprobs.cpu()
        drawn = torch.stack((tokens.double(), logprobs.double())).to(self.device)
        dist.broadcast(
            drawn, src=groups.placement.output_ranks(groups.place.dp_rank)[0], group=groups.dp_slice
        )
        tokens, logprobs = drawn.cpu()
        return tokens.long(), logprobs.float()
