"""What others report for moving weights: on other machines and models, so for context, not as a race."""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """One figure and where it is from."""

    system: str
    setting: str
    figure: str
    source: str


_NEMO = "https://github.com/NVIDIA-NeMo/RL/pull/2808"
_ENGINE = "https://github.com/MoonshotAI/checkpoint-engine (README, Benchmark)"

PUBLISHED = (
    Published("NeMo-RL, NCCL transfer", "4 B, pp2 dp4 to tp4 dp2", "0.09 s", _NEMO),
    Published("NeMo-RL, NCCL transfer", "235 B MoE, tp4 pp8 ep16 to tp8 dp16", "4.56 to 4.85 s", _NEMO),
    Published("NeMo-RL, NCCL transfer", "DeepSeek-V3, pp16 ep16 to tp32 dp8", "7.65 to 9.94 s", _NEMO),
    Published(
        "NeMo-RL, NCCL transfer",
        "30 B MoE, 1,024 GPUs, half of them train",
        "2.41 s",
        "https://github.com/NVIDIA-NeMo/RL/pull/3334",
    ),
    Published("checkpoint-engine", "Qwen3-235B, bf16, 8 H800, broadcast", "6.22 s", _ENGINE),
    Published("checkpoint-engine", "DeepSeek-V3.1, fp8, 256 H20, broadcast", "11.33 s", _ENGINE),
    Published("checkpoint-engine", "Kimi-K2 (1 T), fp8, 256 H20, broadcast", "16.04 s", _ENGINE),
    Published(
        "Perplexity, RDMA writes",
        "Kimi-K2 (1 T), 256 GPUs bf16 to 128 GPUs fp8",
        "1.3 s",
        "https://research.perplexity.ai/articles/weight-transfer-for-rl-post-training-in-under-2-seconds",
    ),
    Published(
        "slime",
        "Qwen3-30B-A3B, colocated",
        "7 s, from 60 s",
        "https://yuanlehome.github.io/blog/slime",
    ),
    Published(
        "verl (HybridFlow)",
        "70 B, training to generation",
        "up to 78.2 s less than OpenRLHF (89.1 %)",
        "https://arxiv.org/abs/2409.19256, section 8.4",
    ),
)
