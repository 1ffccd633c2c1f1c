"""Suggests a key for one that a config does not have: by other trainers' words, else by spelling."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence

_OTHER_WORDS = {
    "model.path": "model model_path model_name model_name_or_path model_id",
    "optimizer.lr": "learning_rate",
    "optimizer.clip_grad_norm": "max_grad_norm grad_clip grad_norm",
    "optimizer.warmup_steps": "num_warmup_steps",
    "generation.max_new_tokens": "max_tokens max_length max_completion_length max_response_length",
    "ppo.kl_coef": "kl kl_beta kl_weight kl_loss_coef beta",
    "ppo.group_size": "n num_generations n_samples rollout_n num_samples",
    "ppo.clip_eps": "clip_range cliprange clip_ratio epsilon",
    "num_samples": "n num_generations n_samples rollout_n group_size",
    "num_steps": "steps max_steps total_steps",
    "num_epochs": "epochs num_train_epochs total_epochs",
    "batch_size": "bs train_batch_size per_device_train_batch_size",
    "data.path": "dataset dataset_name train_files train_data",
    "data.eval_path": "eval_dataset eval_data val_files",
    "data.max_prompt_tokens": "max_prompt_length",
    "data.template": "chat_template custom_chat_template prompt_template input_template",
    "data.template_arguments": "chat_template_kwargs apply_chat_template_kwargs",
    "data.system": "system_prompt system_message",
    "data.num_examples": "num_fewshot num_shots",
    "data.max_response_tokens": "max_tokens max_length max_response_length",
    "eval_every": "test_freq eval_steps eval_interval",
    "eval_at_start": "val_before_train eval_on_start",
    "runs_dir": "output_dir",
}
"""The words that other trainers use for a key, by the end of its path."""


def suggested_key(path: str, siblings: Sequence[str], known: Collection[str]) -> str | None:
    """Return the key that was probably meant by `path`, or None if none is near.

    `siblings` are the names in the section that `path` is in, `known` all dotted keys.
    """
    section, _, word = path.rpartition(".")
    within = f"{section}." if section else ""
    meant = list(_meant(word, known))
    candidates = [key for key in meant if key.startswith(within)]
    for name in difflib.get_close_matches(word, siblings, n=1):
        candidates.append(within + name)
    candidates += meant
    candidates += [key for key in known if _last_name(key) == word]
    candidates += difflib.get_close_matches(path, known, n=1)
    return candidates[0] if candidates else None


def _meant(word: str, known: Collection[str]) -> Iterator[str]:
    """Yield the known keys that set what another trainer calls `word`."""
    for end, words in _OTHER_WORDS.items():
        if word not in words.split():
            continue
        for key in known:
            if key == end or key.endswith(f".{end}"):
                yield key


def _last_name(key: str) -> str:
    """Return the name of a key in its section."""
    return key.rpartition(".")[2]
