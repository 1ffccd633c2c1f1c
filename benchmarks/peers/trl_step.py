"""Steps of TRL's GRPOTrainer: a round is one step, from generation to the optimizer's end."""

from __future__ import annotations

import re
import tempfile
import time

from exchange import Exchange


def main() -> None:
    talk = Exchange()
    job = talk.job
    import torch

    torch.set_num_threads(job["threads"])
    rewards = _Rewards()
    with tempfile.TemporaryDirectory() as folder:
        trainer = _trainer(job, rewards, folder)
        trainer.add_callback(_rounds_callback(talk, rewards))
        trainer.train()


class _Rewards:
    """1 for the right number, else 0; and what the last step generated and got."""

    __name__ = "right_answer"

    def __init__(self) -> None:
        self.tokens, self.mean = 0, 0.0

    def __call__(self, completions: list[str], completion_ids: list, solution: list[str], **_) -> list[float]:
        rewards = [float(_answer(text) == right) for text, right in zip(completions, solution, strict=True)]
        self.tokens, self.mean = sum(map(len, completion_ids)), sum(rewards) / len(rewards)
        return rewards


def _answer(text: str) -> str | None:
    """The last number of a response, as it is written there: a decimal or a fraction is no sum's answer."""
    numbers = re.findall(r"(?:(?<![\w)\]}.])-)?\d+(?:[./]\d+)*", text)
    return numbers[-1] if numbers else None


def _trainer(job: dict, rewards: _Rewards, folder: str):
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import GRPOTrainer

    return GRPOTrainer(
        job["model"],
        reward_funcs=rewards,
        args=_config(job, folder),
        train_dataset=Dataset.from_list(job["prompts"]),
        processing_class=AutoTokenizer.from_pretrained(job["model"], padding_side="left"),
    )


def _config(job: dict, folder: str):
    """A whole batch at once in float32, nothing written, and the optimizer of the recipe `ppo-math`."""
    from trl import GRPOConfig

    return GRPOConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=False,
        model_init_kwargs={"dtype": job["dtype"], "attn_implementation": "sdpa"},
        gradient_checkpointing=False,
        per_device_train_batch_size=job["prompts_per_step"] * job["group_size"],
        num_generations=job["group_size"],
        max_completion_length=job["max_new_tokens"],
        generation_kwargs={"min_new_tokens": job["max_new_tokens"]} if job["fixed_length"] else None,
        shuffle_dataset=False,
        beta=job["kl_coef"],
        learning_rate=job["lr"],
        lr_scheduler_type="constant",
        adam_beta2=0.95,
        max_steps=1_000_000,
        seed=job["seed"],
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def _rounds_callback(talk: Exchange, rewards: _Rewards):
    """Holds the trainer back between two steps until the next round is asked for."""
    from transformers import TrainerCallback

    class Rounds(TrainerCallback):
        def on_train_begin(self, args, state, control, **_):
            talk.ready("torch", "transformers", "trl")
            self._asked = talk.rounds()
            return self._wait(control)

        def on_step_begin(self, args, state, control, **_):
            self._begin_s = time.perf_counter()

        def on_step_end(self, args, state, control, **_):
            talk.answer(time.perf_counter() - self._begin_s, rewards.tokens, mean_reward=rewards.mean)
            return self._wait(control)

        def _wait(self, control):
            if next(self._asked, None) is None:
                control.should_training_stop = True
            return control

    return Rounds()


if __name__ == "__main__":
    main()
