import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realrl.layouts.layout import Box, Layout, Shard
from realrl.layouts.plan import plan
from realrl.realloc.staging import ALIGNMENT, message_bytes, messages
from tests.layouts.painting import random_layout

TENSORS = {"a": (7, 5), "b": (13,), "c": (3, 4, 5), "d": ()}


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(96, 4000), st.sampled_from([1, 2, 8, 16]))
def test_no_rank_stages_more_than_the_bound(seed, staging_bytes, itemsize):
    """Rule 6: the longest messages of all pairs of a rank together stay within `staging_bytes`."""
    rng = random.Random(seed)
    found = plan(random_layout(rng, TENSORS, [0, 1, 2]), random_layout(rng, TENSORS, [1, 2, 3]))
    limit = message_bytes(found, staging_bytes)
    staged: Counter = Counter()
    for (source, target), copies in found.pairs.items():
        longest = max(m.num_bytes for m in messages(copies, lambda copy: itemsize, limit))
        staged.update({source: longest, target: longest})
    assert max(staged.values(), default=0) <= staging_bytes


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 20).map(lambda n: n * ALIGNMENT))
def test_messages_hold_every_payload_once_without_overlap(seed, limit):
    """Pieces begin aligned, one after another, and add up to what the plan says crosses."""
    rng = random.Random(seed)
    found = plan(random_layout(rng, TENSORS, [0, 1, 2]), random_layout(rng, TENSORS, [1, 2, 3]))
    crossed = 0
    for copies in found.pairs.values():
        for message in messages(copies, lambda copy: 4, limit):
            end = 0
            for piece in message.pieces:
                assert piece.begin >= end and piece.begin % ALIGNMENT == 0
                end = piece.begin + 4 * piece.copies[0].numel
                crossed += piece.copies[0].numel
            assert end <= message.num_bytes <= limit
    assert crossed == found.moved_elements()


def test_too_little_staging_is_refused():
    """A setting with no room for an element a peer says how much it needs."""
    box = Box("w", (0,), (4,))
    found = plan(Layout((Shard(0, box, "w", (0,)),)), Layout((Shard(1, box, "w", (0,)),)))
    with pytest.raises(ValueError, match="staging_bytes must be at least 16 .* got 15"):
        message_bytes(found, 15)
