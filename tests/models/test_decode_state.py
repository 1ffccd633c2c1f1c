"""Rows on the device follow the rollouts, by as few messages as can be."""

from __future__ import annotations

import pytest
import torch

from realrl.models import decode_state
from realrl.models.decode_state import DecodeState, Drawn, HostBlock
from realrl.models.sequences import Rollout

SPARE_PAGE = 99


@pytest.fixture
def messages(monkeypatch) -> list[int]:
    """The number of tensors in each message."""
    sent, upload = [], decode_state.upload

    def counted(tensors, device):
        sent.append(len(tensors))
        return upload(tensors, device)

    monkeypatch.setattr(decode_state, "upload", counted)
    return sent


def rollouts() -> list[Rollout]:
    """Of rows in another order than theirs, one of which continues."""
    return [
        Rollout((5, 6, 7), seed=11, pages=[4], row=2),
        Rollout((8,), seed=22, tokens=[1, 2], pages=[3, 0], row=0),
    ]


def state_of(running: list[Rollout]) -> DecodeState:
    state = DecodeState(num_rows=5, pages_each=3, spare_page=SPARE_PAGE, device="cpu")
    state.begin(running, [])
    return state


def draw(state: DecodeState, size: int, tokens: list[int]) -> None:
    zeros = torch.zeros(size)
    state.write(Drawn(torch.tensor(tokens), zeros, zeros))
    state.advance(size)


def test_lanes_are_the_running_rollouts_and_spare_rows():
    running = rollouts()
    state = state_of(running)
    draw(state, 2, [40, 50])
    state.follow(running[::-1], 4)
    lanes = state.read(4)
    assert lanes.ids[:2].tolist() == [50, 40]
    # A prompt of 1 token and 3 drawn ones, of 3 and 1.
    assert lanes.positions.tolist() == [3, 3, 0, 0]
    assert lanes.counts.tolist() == [3, 1, 0, 0]
    assert lanes.seeds[:2].tolist() == [22, 11]
    assert lanes.table[0, :2].tolist() == [3, 0] and lanes.table[1, 0] == 4
    assert (lanes.table[2:] == SPARE_PAGE).all()


def test_the_spare_row_stays_where_it_is():
    """However long a step has more lanes than sequences: its page is one."""
    state = state_of(running := rollouts())
    state.follow(running, 4)
    for token in range(1000):
        draw(state, 4, [token] * 4)
    assert state.read(4).positions.tolist() == [1002, 1002, 0, 0]
    state.park_lanes(4)
    draw(state, 4, [7] * 4)
    assert state.read(4).positions.tolist() == [0] * 4


def test_nothing_is_sent_where_nothing_changes(messages):
    """Tokens are known on the device; rows, pages and sizes are not."""
    running = rollouts()
    state = state_of(running)
    state.follow(running, 2)
    draw(state, 2, [40, 50])
    state.follow(running, 2)
    assert len(messages) == 1
    running[0].pages.append(7)
    state.follow(running, 2)
    assert len(messages) == 2 and state.read(2).table[0, :2].tolist() == [4, 7]
    state.follow(running, 2)
    assert len(messages) == 2
    state.follow(running, 3)
    state.follow(running[1:], 3)
    state.park_lanes(3)
    state.follow(running[1:], 3)
    assert len(messages) == 5


def test_another_rollout_in_a_row_has_its_own_pages(messages):
    """Though it has as many as the one before it."""
    running = rollouts()
    state = state_of(running)
    running[0] = Rollout((9,), seed=33, pages=[6], row=2)
    state.begin(running[:1], [])
    state.follow(running, 2)
    assert state.read(2).table[:, 0].tolist() == [6, 3]
    assert state.read(2).seeds.tolist() == [33, 22]


def test_a_block_is_read_as_it_was():
    """Though the next step has overwritten it; the word on breaks is the last one."""
    state = state_of(rollouts())
    for is_due in (False, True, True, False):
        state.mark_break(is_due)
        state.write(Drawn(torch.tensor([3, 4]), torch.tensor([-1.0, -2.0]), torch.tensor([-0.5, -0.25])))
        block = HostBlock(state.drawn(2))
        draw(state, 2, [0, 0])
        assert block.read() == ([(3, -1.0, -0.5), (4, -2.0, -0.25)], is_due)
