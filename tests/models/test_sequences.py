"""Who runs and who holds which pages: properties of the queue over random runs."""

from __future__ import annotations

from collections import Counter, deque

from hypothesis import given, settings
from hypothesis import strategies as st

from realrl.models.sequences import Rollout, Sequences

PAGE = 4


def play(
    rollouts: list[Rollout],
    sequences: Sequences,
    max_tokens: int,
    lengths: list[int],
    *,
    num_late: int = 0,
) -> list[list[int]]:
    """Run the queue with a model that ends rollout i after `lengths[i]` tokens; who ran at each turn.

    A turn is read once `num_late` more have been launched.
    """
    wanted = dict(zip(map(id, rollouts), lengths))
    turns: list[list[int]] = []
    unread: deque[list[Rollout]] = deque()
    number = {id(r): i for i, r in enumerate(rollouts)}

    def launch(running: list[Rollout]) -> None:
        for rollout in running:
            rollout.num_unread += 1
        unread.append(running)
        read(num_late)

    def read(num_left: int) -> None:
        while len(unread) > num_left:
            for rollout in unread.popleft():
                rollout.num_unread -= 1
                if not sequences.is_done(rollout):
                    write(rollout)

    def write(rollout: Rollout) -> None:
        rollout.tokens.append(7)
        rollout.ended = len(rollout.tokens) >= wanted[id(rollout)]
        if sequences.is_done(rollout):
            sequences.finish(rollout)

    while sequences.busy:
        assert len(turns) < 1000, "the queue does not get on"
        launch([r for admission in sequences.admit(max_tokens) for r in admission.rollouts])
        check_pages(sequences)
        if sequences.lacks_pages:
            read(0)
        sequences.grow()
        check_pages(sequences)
        running = sequences.decodable
        check_room(running)
        turns.append([number[id(r)] for r in running])
        launch(running)
        if not running:
            read(0)
    return turns


def check_room(running: list[Rollout]) -> None:
    """The newest token of each, which goes into the cache now, has a place."""
    assert all(r.length <= len(r.pages) * PAGE for r in running)


def check_pages(sequences: Sequences) -> None:
    """Each running rollout has room for its tokens; a page is shared only where it is full of one prompt."""
    holders: dict[int, list[Rollout]] = {}
    for rollout in sequences.running:
        assert len(rollout.pages) == len(set(rollout.pages))
        for page in rollout.pages:
            holders.setdefault(page, []).append(rollout)
    for page, group in holders.items():
        if len(group) > 1:
            assert len({r.prompt for r in group}) == 1
            places = {r.pages.index(page) for r in group}
            assert len(places) == 1 and (places.pop() + 1) * PAGE <= len(group[0].prompt)
    rows = Counter(r.row for r in sequences.running)
    assert all(count == 1 for count in rows.values()) and -1 not in rows


@settings(max_examples=200, deadline=None)
@given(
    groups=st.lists(st.tuples(st.integers(1, 13), st.integers(1, 4)), min_size=1, max_size=6),
    spare_pages=st.integers(0, 12),
    max_running=st.integers(1, 8),
    max_tokens=st.integers(1, 40),
    seed=st.randoms(use_true_random=False),
    num_late=st.integers(0, 1),
)
def test_every_rollout_comes_to_its_end(groups, spare_pages, max_running, max_tokens, seed, num_late):
    """With any number of pages that holds one, and without holding a page too many at the end; also where
    turns are read late."""
    prompts = [((index,) * length, count) for index, (length, count) in enumerate(groups)]
    rollouts = [Rollout(prompt, seed=0) for prompt, count in prompts for _ in range(count)]
    lengths = [seed.randint(1, 9) for _ in rollouts]
    num_pages = -(-(max(length for length, _ in groups) + 9) // PAGE) + spare_pages
    sequences = Sequences(rollouts, num_pages=num_pages, page_tokens=PAGE, max_running=max_running, max_new=9)
    turns = play(rollouts, sequences, max_tokens, lengths, num_late=num_late)
    assert [len(r.tokens) for r in rollouts] == lengths
    assert all(len(turn) <= max_running for turn in turns)
    assert all(not r.pages for r in rollouts)
    assert sequences._pool.num_free == num_pages


def test_a_prompts_full_pages_are_held_once():
    """Four samples of a prompt of nine tokens: two pages together, and one of their own each."""
    rollouts = [Rollout((1,) * 9, seed=0) for _ in range(4)]
    sequences = Sequences(rollouts, num_pages=20, page_tokens=PAGE, max_running=4, max_new=3)
    (admission,) = sequences.admit(100)
    assert admission.num_tokens == 9
    assert len({page for r in rollouts for page in r.pages}) == 2 + 4
    assert all(r.pages[:2] == rollouts[0].pages[:2] for r in rollouts)


def test_the_longest_prompts_go_first():
    rollouts = [Rollout((index,) * length, seed=0) for index, length in enumerate((3, 9, 5))]
    sequences = Sequences(rollouts, num_pages=20, page_tokens=PAGE, max_running=2, max_new=3)
    assert [len(a.prompt) for a in sequences.admit(100)] == [9, 5]


def test_a_place_is_taken_again_as_soon_as_it_is_free():
    """Two places, three rollouts: the third starts in the turn after the first has ended."""
    rollouts = [Rollout((index,), seed=0) for index in range(3)]
    sequences = Sequences(rollouts, num_pages=20, page_tokens=PAGE, max_running=2, max_new=9)
    assert play(rollouts, sequences, 100, [3, 6, 4]) == [[0, 1], [0, 1], [1, 2], [1, 2], [1, 2]]
