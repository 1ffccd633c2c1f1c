"""The description of a decoder: its sizes, its traits, and the names of its tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from realrl.models.rope import Rope
from realrl.ops.gated import Activation


@dataclass(frozen=True, kw_only=True)
class Names:
    """Hugging Face's names of a family's modules; `*` stands for a layer's number.

    Several names are the parts of one local tensor, in order; one name for several parts is a tensor that
    holds them all in that order. The defaults are Llama's.
    """

    base: str = "model."
    """The prefix of all names except the heads'; files saved from the bare model lack it."""
    embed: str = "model.embed_tokens"
    positions: str = "model.embed_positions"
    layer: str = "model.layers.*."
    attn_norm: str = "input_layernorm"
    qkv: tuple[str, ...] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    q_norm: str = "self_attn.q_norm"
    k_norm: str = "self_attn.k_norm"
    attn_out: str = "self_attn.o_proj"
    attn_post_norm: str = "post_attention_layernorm"
    mlp_norm: str = "post_attention_layernorm"
    gate_up: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")
    mlp_down: str = "mlp.down_proj"
    mlp_post_norm: str = "post_feedforward_layernorm"
    norm: str = "model.norm"
    head: str = "lm_head"
    scalar_head: str = "score"
    transposed: bool = False
    """Matrices of the layers are stored `[in, out]`."""


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Sizes and traits of one decoder. The defaults of the traits are Llama's."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_position: int
    norm_eps: float
    tied: bool
    """The output head is the embedding."""
    eos_token_ids: tuple[int, ...]
    rope: Rope | None = field(default_factory=Rope)
    """None: learned embeddings of the positions are added to those of the tokens."""
    norm: Literal["rms", "layer"] = "rms"
    norm_offset: float = 0.0
    """Added to the weights of norms."""
    qk_norm: bool = False
    """Queries and keys are normalised, head by head."""
    post_norms: bool = False
    """The outputs of attention and MLP are normalised, too."""
    activation: Activation = "silu"
    gated: bool = True
    """The MLP's activation gates a second product."""
    qkv_bias: bool = False
    attn_out_bias: bool = False
    mlp_bias: bool = False
    attention_scale: float | None = None
    """The factor of attention scores; None: `head_dim ** -0.5`."""
    attention_softcap: float | None = None
    """The bound of attention scores, as `cap * tanh(score / cap)`; None: no bound."""
    logit_softcap: float | None = None
    """The bound of logits, in the same form."""
    windows: tuple[int | None, ...] = ()
    """The number of tokens that a token sees in each layer, itself included; None or empty: all before it."""
    embed_scale: float = 1.0
    """The factor of the embeddings of tokens."""
    names: Names = field(default_factory=Names)

    @property
    def score_scale(self) -> float:
        """The factor of attention scores."""
        if self.attention_scale is None:
            return self.head_dim**-0.5
        return self.attention_scale

    def window(self, layer: int) -> int | None:
        """Return the number of tokens that a token sees in a layer; None: all before it."""
        if not self.windows:
            return None
        return self.windows[layer]

    @property
    def embedding(self) -> str:
        """The name of the embedding's tensor."""
        return f"{self.names.embed}.weight"

    @property
    def scalar_head(self) -> str:
        """The name of the tensor of the head with one scalar per token."""
        return f"{self.names.scalar_head}.weight"
