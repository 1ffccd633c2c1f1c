"""A response that is learned ends as its template ends a turn, and generation ends there."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tokenizers import AddedToken

from realrl.api.batch import PackedBatch, Sample, pack
from realrl.api.config import GenerationConfig, OptimizerConfig
from realrl.api.data import DataConfig
from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.datasets.demonstrations import load_demonstrations
from realrl.datasets.end_tokens import end_of_response, stopping
from realrl.datasets.pairs import load_pairs
from realrl.engines.decoder_engine import DecoderEngine
from realrl.engines.options import EngineOptions
from realrl.models.registry import read_decoder_config
from realrl.parallel.groups import local_groups
from realrl.recipes import gen, ppo_math, sft
from realrl.recipes.gen import GenConfig
from realrl.recipes.ppo_math import PPOMathConfig
from realrl.recipes.sft import SFTConfig
from tests.tiny import VOCAB, tiny_llama, tiny_tokenizer

EOS, TURN = 1, "<|im_end|>"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WITHOUT_ANSWERS = "{% for m in messages %}{{ raise_exception('no') if m.role == 'assistant' }}{% endfor %}"


def tokenizer_of(chat_template: str | None, *tokens: str):
    """With special tokens, from the id `VOCAB - 1` on in place of a spare one's."""
    tokenizer = tiny_tokenizer(VOCAB - len(tokens))
    tokenizer.add_tokens([AddedToken(token, special=True) for token in tokens])
    tokenizer.chat_template = chat_template
    return tokenizer


@pytest.mark.parametrize(
    ("chat_template", "end"),
    [
        (CHATML, TURN),
        ("{% for m in messages %}<bos>{{ m.role }}\n{{ m.content | trim }}<|im_end|>{% endfor %}", TURN),
        ("{% for m in messages %}{{ m.content }} \n<|im_end|>\n<eos>{% endfor %}", TURN),
        ("{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}", "<eos>"),
        ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", "<eos>"),
        (WITHOUT_ANSWERS, "<eos>"),
        (None, "<eos>"),
    ],
)
def test_the_end_is_what_the_chat_template_puts_after_an_answer(chat_template, end):
    """The first special token there; where there is none, the tokenizer's end of a sequence."""
    tokenizer = tokenizer_of(chat_template, "<|im_start|>", TURN)
    expected = tokenizer.convert_tokens_to_ids(end)
    assert end_of_response(tokenizer, "chat") == expected
    assert end_of_response(tokenizer, "plain") == EOS
    assert end_of_response(tokenizer, "qwen-boxed") == tokenizer.convert_tokens_to_ids(TURN)
    config = GenerationConfig(stop_token_ids=(9,))
    assert stopping(config, tokenizer, "chat").stop_token_ids == (9, expected)


def test_demonstrations_and_pairs_are_learned_with_that_end(tmp_path):
    """Once, also where the text has it already, or the tokenizer's own end."""
    tokenizer = tokenizer_of(CHATML, "<|im_start|>", TURN)
    rows = [{"prompt": "a", "response": "b" + end} for end in ("", TURN, TURN + "\n", "<eos>")]
    rows = [row | {"chosen": "c", "rejected": "d" + TURN} for row in rows]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = SFTConfig(data=DataConfig(path=str(tmp_path / "rows.jsonl")))
    learned, _ = load_demonstrations(config, tokenizer)
    for row in range(len(rows)):
        tensors = learned.tensors(row)
        assert tokenizer.decode(tensors["input_ids"][tensors["loss_mask"]]) == "b" + TURN
    (chosen, rejected), *_ = load_pairs(config, tokenizer)[0].responses
    assert tokenizer.decode(chosen) == "c" + TURN and tokenizer.decode(rejected) == "d" + TURN


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """One whose config ends at `<eos>`, and whose tokenizer's chat template ends turns with another token."""
    directory = tiny_llama(tmp_path_factory.mktemp("base"))
    tokenizer_of(CHATML, TURN).save_pretrained(directory)
    return directory


def test_what_learned_to_end_ends(model, tmp_path):
    """By `sft`, and then in `gen` and in PPO's generation, though its config names another token; and it is
    said that other programs would have to be told."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "a", "response": "b"}))
    data = DataConfig(path=str(tmp_path / "rows.jsonl"))
    optimizer = OptimizerConfig(lr=3e-3)
    config = SFTConfig(data=data, optimizer=optimizer)
    rows, _ = load_demonstrations(config, tokenizer)
    (note,) = rows.notes
    assert f"end with '{TURN}' (token {VOCAB - 1}), but the model's configuration ends at '<eos>'" in note
    engine = engine_of(model, optimizer)
    prompt = learn(engine, config, rows.tensors(0))
    answers = pack([Sample(0, 0)], {"prompts": [prompt]})
    generation = GenerationConfig(max_new_tokens=8, temperature=0.0)
    settings = {"data": data, "generation": generation}
    for body, its_config in (
        (gen.generate, GenConfig(**settings)),
        (ppo_math.PPO_MATH.bodies["actor_gen"], PPOMathConfig(**settings)),
    ):
        found = body(context(its_config, engine, tokenizer), answers).batch
        assert tokenizer.decode(found["input_ids"][found["loss_mask"]]) == "b" + TURN
        assert found["ended"].all()


def engine_of(model: Path, optimizer: OptimizerConfig) -> DecoderEngine:
    engine = DecoderEngine(
        read_decoder_config(model),
        "lm",
        local_groups(Placement(DeviceMesh((0,)), ParallelLayout())),
        EngineOptions(dtype=torch.float32, device="cpu", max_tokens_per_microbatch=100, optimizer=optimizer),
    )
    engine.load(model)
    return engine


def learn(engine: DecoderEngine, config: SFTConfig, row: dict[str, torch.Tensor]) -> torch.Tensor:
    """Train on one row until it is known by heart; returns its prompt."""
    batch: PackedBatch = pack([Sample(0, 0)], {key: [tensor] for key, tensor in row.items()})
    for _ in range(20):
        sft.train(context(config, engine), batch)
    return row["input_ids"][~row["loss_mask"]]


def context(config, engine: DecoderEngine, tokenizer=None) -> SimpleNamespace:
    return SimpleNamespace(
        config=config,
        engine=engine,
        tokenizer=tokenizer,
        step=0,
        eval_set="",
        evaluating=False,
        reduce=lambda x: x,
        preemption=SimpleNamespace(pending=lambda: False, run=lambda: None),
        progress=lambda done, total: None,
    )
