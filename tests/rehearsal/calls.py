"""One short call of each CUDA kernel, compared with its reference."""

from __future__ import annotations

import torch

from realrl.ops import box_copies as boxes
from realrl.ops import logits
from realrl.ops.draw import draw_tokens, draw_tokens_reference
from realrl.ops.gae import gae
from realrl.ops.logits import LogitsMap
from realrl.ops.rotary import rotate, rotate_reference
from tests.ops.gae_loop import gae_loop, random_batch
from tests.rehearsal.decode_steps import Shape, check, random_step
from tests.rehearsal.rehearse import displaced


def check_gae():
    batch = random_batch([40, 33], seed=1)
    found = gae(*batch, gamma=0.9, lam=0.9)
    for tensor, wanted in zip(found, gae_loop(*batch, gamma=0.9, lam=0.9)):
        torch.testing.assert_close(tensor.double(), wanted)


def check_rotate():
    x, angles = torch.randn(3, 4, 10), torch.randn(3, 5)
    found = rotate(x, angles.cos(), angles.sin(), 2)
    torch.testing.assert_close(found, rotate_reference(x, angles.cos(), angles.sin(), 2))


def check_logits(offset: int = 0):
    x, labels = displaced(torch.randn(2, 1000), offset), torch.tensor([3, 500])
    mapping = LogitsMap(first=0, num_real=1000)
    found = logits.statistics(x, labels, mapping)
    torch.testing.assert_close(found, logits.statistics_reference(x, labels, mapping))


def check_logits_at_an_odd_address():
    check_logits(offset=1)


def check_draw():
    x, uniforms = torch.randn(2, 1000), torch.tensor([0.2, 0.9], dtype=torch.float64)
    assert torch.equal(draw_tokens(x, uniforms, 0.8, 0.7), draw_tokens_reference(x, uniforms, 0.8, 0.7))


def check_sum():
    message, total = torch.randn(2000).view(torch.uint8), torch.zeros(1, dtype=torch.int64)
    boxes.pack(boxes.Boxes([], [], []), message, total)
    assert total.item() == boxes.checksum(message)


def check_copy():
    """Rows that begin at multiples of a vector, and are not of whole vectors."""
    source, target = torch.randn(20, 32), torch.zeros(20, 40, dtype=torch.bfloat16)
    boxes.copy([source[:, :30]], [target[:, 4:34]])
    assert torch.equal(target[:, 4:34], source[:, :30].bfloat16()) and not target[:, 34:].any()


def check_decode(dtype: torch.dtype = torch.bfloat16, head_dim: int = 64):
    """Two spans and a part of a tile; queries that fill no block's heads."""
    step = random_step(Shape(3, head_dim, 16), (530, 20), dtype)
    check(step.run(), step)


def check_decode_in_float32():
    check_decode(torch.float32)
