"""Functions of PyTorch that the package names are in every release that it supports, with their arguments."""

from __future__ import annotations

import pytest

from tests.rehearsal import signatures, used

FUNCTIONS = used.functions()


def test_the_oldest_and_the_newest_release_are_there():
    """The package's own lower bound among them."""
    assert [release["torch"][:4] for release in signatures.releases()] == ["2.11", "2.12", "2.13"]
    assert "torch>=2.11" in (used.ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_release_has_it(name):
    signatures.check(name, FUNCTIONS[name])


@pytest.mark.parametrize(
    ("name", "keywords", "fault"),
    [
        ("torch.nn.attention.varlen.varlen_attn", ["num_splits"], "torch 2.11.0 takes no num_splits"),
        ("torch.mm", [], None),
        ("torch.nowhere", [], "not in torch_names.txt"),
    ],
)
def test_what_a_release_lacks_is_found(name, keywords, fault):
    """With a function that got arguments between two of them."""
    if fault is None:
        return signatures.check(name, keywords)
    with pytest.raises(AssertionError, match=fault):
        signatures.check(name, keywords)
