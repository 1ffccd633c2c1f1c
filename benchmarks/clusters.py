"""Models and layouts on clusters that are not here, for the simulation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from realrl.api.allocation import parse_layout
from realrl.api.mesh import DeviceMesh, Placement
from realrl.layouts.layout import Layout, Part, Pattern, Shape
from realrl.models.config import DecoderConfig
from realrl.models.layout import decoder_layout
from realrl.models.rope import Rope


@dataclass(frozen=True)
class Scenario:
    """Two layouts of one model on so many GPUs."""

    name: str
    num_gpus: int
    model: str
    change: str
    layouts: Callable[[], tuple[Layout, Layout]]


def _llama(hidden: int, inner: int, layers: int, heads: int, kv_heads: int, vocab: int) -> DecoderConfig:
    return DecoderConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=inner,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=128,
        max_position=8192,
        rope=Rope(theta=5e5),
        norm_eps=1e-5,
        tied=False,
        eos_token_ids=(),
    )


LLAMA_7B = _llama(4096, 11008, 32, 32, 32, 32000)
"""Llama 2 7B. Source: huggingface.co/meta-llama/Llama-2-7b, config.json."""
LLAMA_70B = _llama(8192, 28672, 80, 64, 8, 128256)
"""Llama 3.1 70B. Source: huggingface.co/meta-llama/Llama-3.1-70B, config.json."""


def _dense(
    name: str, model: str, decoder: DecoderConfig, source: str, target: str, first: int = 0
) -> Scenario:
    """`first` is the target's first rank."""
    before, after = parse_layout(source), parse_layout(target)

    def layouts() -> tuple[Layout, Layout]:
        meshes = (DeviceMesh(tuple(range(s, s + p.size))) for s, p in ((0, before), (first, after)))
        placements = (Placement(mesh, p) for mesh, p in zip(meshes, (before, after)))
        return tuple(decoder_layout(decoder, placement, "lm") for placement in placements)

    num_gpus = max(before.size, first + after.size)
    return Scenario(name, num_gpus, model, f"{source} to {target}" + (f" @{first}" if first else ""), layouts)


_HIDDEN, _LAYERS, _DENSE_LAYERS, _EXPERTS, _EXPERT, _VOCAB = 7168, 61, 3, 256, 2048, 129280
_ATTENTION: Mapping[str, Shape] = {
    "input_layernorm.weight": (_HIDDEN,),
    "post_attention_layernorm.weight": (_HIDDEN,),
    "self_attn.q_a_proj.weight": (1536, _HIDDEN),
    "self_attn.q_a_layernorm.weight": (1536,),
    "self_attn.q_b_proj.weight": (128 * 192, 1536),
    "self_attn.kv_a_proj_with_mqa.weight": (512 + 64, _HIDDEN),
    "self_attn.kv_a_layernorm.weight": (512,),
    "self_attn.kv_b_proj.weight": (128 * 256, 512),
    "self_attn.o_proj.weight": (_HIDDEN, 128 * 128),
}
_DENSE = {
    "mlp.gate_proj.weight": (18432, _HIDDEN),
    "mlp.up_proj.weight": (18432, _HIDDEN),
    "mlp.down_proj.weight": (_HIDDEN, 18432),
}
_SPARSE = {
    "mlp.gate.weight": (_EXPERTS, _HIDDEN),
    "mlp.gate.e_score_correction_bias": (_EXPERTS,),
    "mlp.shared_experts.gate_proj.weight": (_EXPERT, _HIDDEN),
    "mlp.shared_experts.up_proj.weight": (_EXPERT, _HIDDEN),
    "mlp.shared_experts.down_proj.weight": (_HIDDEN, _EXPERT),
}
_ROUTED = {
    "gate_proj.weight": (_EXPERT, _HIDDEN),
    "up_proj.weight": (_EXPERT, _HIDDEN),
    "down_proj.weight": (_HIDDEN, _EXPERT),
}
_TOP = {"model.embed_tokens.weight": (_VOCAB, _HIDDEN)}
_BOTTOM = {"model.norm.weight": (_HIDDEN,), "lm_head.weight": (_VOCAB, _HIDDEN)}


def moe_layout(pp: int, ep: int, replicas: int) -> Layout:
    """DeepSeek-V3 over `pp * replicas * ep` ranks, expert axis innermost.

    A rank holds its share of the experts of its stage's layers, and all else of them.
    Source: huggingface.co/deepseek-ai/DeepSeek-V3, config.json and the tensors of its index, without the
    extra layer for multi-token prediction.
    """
    return Layout(tuple(_moe_patterns(pp, ep, replicas)))


def _moe_patterns(pp: int, ep: int, replicas: int) -> Iterator[Pattern]:
    for stage in range(pp):
        first = stage * replicas * ep
        ranks = range(first, first + replicas * ep)
        layers = range(stage * _LAYERS // pp, (stage + 1) * _LAYERS // pp)
        dense = [layer for layer in layers if layer < _DENSE_LAYERS]
        sparse = [layer for layer in layers if layer >= _DENSE_LAYERS]
        for members, shapes in ((layers, _ATTENTION), (dense, _DENSE), (sparse, _SPARSE)):
            keys = tuple(map(str, members))
            yield from (
                _whole(f"model.layers.*.{n}", shape, ranks, keys) for n, shape in shapes.items() if keys
            )
        for share in range(ep):
            experts = range(share * _EXPERTS // ep, (share + 1) * _EXPERTS // ep)
            keys = tuple(f"{layer}.mlp.experts.{expert}" for layer in sparse for expert in experts)
            holders = ranks[share::ep]
            yield from (_whole(f"model.layers.*.{n}", s, holders, keys) for n, s in _ROUTED.items() if keys)
        if stage == 0:
            yield from (_whole(name, shape, ranks, None) for name, shape in _TOP.items())
        if stage == pp - 1:
            yield from (_whole(name, shape, ranks, None) for name, shape in _BOTTOM.items())


def _whole(name: str, shape: Shape, ranks: Sequence[int], keys: tuple[str, ...] | None) -> Pattern:
    zeros = (0,) * len(shape)
    return Pattern(name, (Part(tuple(ranks), zeros, shape, name, zeros),), keys)


SCENARIOS = (
    _dense("7b-8", "Llama 7 B", LLAMA_7B, "p2d2t2", "d4t2"),
    _dense("70b-64", "Llama 70 B", LLAMA_70B, "p8d1t8", "d16t4"),
    _dense("70b-256", "Llama 70 B", LLAMA_70B, "p8d4t8", "d64t4"),
    _dense("70b-64-192", "Llama 70 B", LLAMA_70B, "p8d1t8", "d48t4", first=64),
    Scenario(
        "671b-1024",
        1024,
        "DeepSeek-V3 671 B",
        "pp16 ep64 to ep64, 16 replicas",
        lambda: (moe_layout(16, 64, 1), moe_layout(1, 64, 16)),
    ),
)
