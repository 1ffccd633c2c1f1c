"""Generation by transformers: `model.generate` over prompts padded on the left, with sdpa attention."""

from __future__ import annotations

import time

from exchange import Exchange


def main() -> None:
    talk = Exchange()
    import torch
    from transformers import AutoModelForCausalLM

    job = talk.job
    torch.set_num_threads(job["threads"])
    torch.manual_seed(job["seed"])
    model = AutoModelForCausalLM.from_pretrained(
        job["model"], dtype=job["dtype"], attn_implementation="sdpa", local_files_only=True
    ).eval()
    inputs = _padded(job["prompts"])
    width = inputs["input_ids"].shape[1]
    options = _options(job)
    talk.ready("torch", "transformers")
    for _ in talk.rounds():
        begin_s = time.perf_counter()
        responses = model.generate(**inputs, **options)[:, width:]
        seconds = time.perf_counter() - begin_s
        _check(responses.shape, job)
        talk.answer(seconds, responses.numel())


def _padded(prompts: list[list[int]]) -> dict:
    import torch

    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return {"input_ids": ids, "attention_mask": mask}


def _options(job: dict) -> dict:
    """Plain sampling at temperature 1 of `max_new_tokens` tokens each, with the default (growing) cache."""
    return {
        "do_sample": True,
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "num_return_sequences": job["group_size"],
        "min_new_tokens": job["max_new_tokens"],
        "max_new_tokens": job["max_new_tokens"],
        "pad_token_id": 0,
    }


def _check(shape: tuple[int, int], job: dict) -> None:
    wanted = (len(job["prompts"]) * job["group_size"], job["max_new_tokens"])
    if tuple(shape) != wanted:
        raise SystemExit(f"generated {tuple(shape)} tokens, not {wanted}")


if __name__ == "__main__":
    main()
