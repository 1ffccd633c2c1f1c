"""Calls reward functions: one at a time, on many responses at once, or many calls at the same time.

plain    f(prompt, response, solutions) or f(sample)   one call after the other
         f(samples)                                    one call
async    f(prompt, response, solutions) or f(sample)   up to `MOST_OPEN` calls in the process's event loop
         f(samples)                                    one call in that loop
"""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from realrl.base.progress import Progress, counted, no_progress
from realrl.base.user_files import describe_error
from realrl.rewards.functions import LARGEST_REWARD, RewardFunction, is_usable, load_function
from realrl.rewards.samples import RewardSample

MOST_OPEN = 64
"""The most calls of an async function that are open at once in a process: servers and file descriptors have
their limits."""
_SHOWN_CHARS = 200
"""The largest number of characters of a response in an error."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def rewards_by(
    reference: str, samples: Sequence[RewardSample], progress: Progress = no_progress
) -> list[float | None]:
    """Return a function's reward for each response; None where it has no opinion.

    Raises:
        RuntimeError: the function raised an error, or returned what cannot be rewards.
    """
    reward = load_function(reference)
    if not samples:
        return []
    if reward.takes == "samples":
        found = _of_all(reward, samples)
        progress(len(samples), len(samples))
        return found
    if not reward.is_async:
        one_by_one = (_of_one(reward, sample) for sample in samples)
        return list(counted(one_by_one, len(samples), progress))

    def ask(sample: RewardSample) -> Coroutine[Any, Any, float | None]:
        return _awaited_of_one(reward, sample)

    return run_in_loop(gathered(ask, samples, MOST_OPEN, progress))


def run_in_loop(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine in this process's event loop, which lasts: clients that are kept in it stay usable."""
    return _loop_of(os.getpid()).run_until_complete(work)


async def gathered(
    ask: Callable[[Item], Awaitable[Result]],
    items: Sequence[Item],
    most_open: int,
    progress: Progress,
) -> list[Result]:
    """Return the result of `ask` for each item, with at most `most_open` of them open at once.

    The first error ends all others.
    """
    gate = asyncio.Semaphore(most_open)

    async def ask_in_turn(item: Item) -> Result:
        async with gate:
            return await ask(item)

    tasks = [asyncio.ensure_future(ask_in_turn(item)) for item in items]
    try:
        for done, finished in enumerate(asyncio.as_completed(tasks), start=1):
            await finished
            progress(done, len(items))
    finally:
        for task in tasks:
            task.cancel()
        # Those that were cancelled end here: the loop lasts, and would keep them.
        await asyncio.gather(*tasks, return_exceptions=True)
    return [task.result() for task in tasks]


@functools.cache
def _loop_of(pid: int) -> asyncio.AbstractEventLoop:
    """Return this process's event loop. A forked process has another id, and therefore a loop of its own."""
    return asyncio.new_event_loop()


def _of_all(reward: RewardFunction, samples: Sequence[RewardSample]) -> list[float | None]:
    """Return the rewards of a function that takes all responses at once."""
    shown = f"the first of {len(samples)} responses was {samples[0].response[:_SHOWN_CHARS]!r}"

    async def awaited() -> Any:
        return await reward.function(list(samples))

    with _named(reward, shown):
        given = run_in_loop(awaited()) if reward.is_async else reward.function(list(samples))
        found = [_number(each) for each in given]
    if len(found) != len(samples):
        raise RuntimeError(
            f"reward {reward.reference} gave {len(found)} rewards, expected one for each of {len(samples)}"
            f" samples; {shown}"
        )
    for sample, number in zip(samples, found, strict=True):
        _check(reward, number, sample)
    return found


def _of_one(reward: RewardFunction, sample: RewardSample) -> float | None:
    """Return a plain function's reward for one response."""
    with _named(reward, _shown(sample)):
        number = _number(reward.function(*_arguments(reward, sample)))
    return _check(reward, number, sample)


async def _awaited_of_one(reward: RewardFunction, sample: RewardSample) -> float | None:
    """Return an async function's reward for one response."""
    with _named(reward, _shown(sample)):
        number = _number(await reward.function(*_arguments(reward, sample)))
    return _check(reward, number, sample)


def _arguments(reward: RewardFunction, sample: RewardSample) -> tuple[Any, ...]:
    if reward.takes == "texts":
        return (sample.prompt, sample.response, sample.solutions)
    return (sample,)


def _number(given: Any) -> float | None:
    return None if given is None else float(given)


def _shown(sample: RewardSample) -> str:
    return f"the response was {sample.response[:_SHOWN_CHARS]!r}"


@contextmanager
def _named(reward: RewardFunction, shown: str) -> Iterator[None]:
    """Raise RuntimeError, which names the function, for an error of a user's function."""
    try:
        yield
    # A call is cancelled where another one failed.
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise
    # SystemExit, too, which would end this worker without a message.
    except BaseException as error:
        raise RuntimeError(f"reward {reward.reference} raised {describe_error(error)}; {shown}") from error


def _check(reward: RewardFunction, number: float | None, sample: RewardSample) -> float | None:
    """Return a reward; raise RuntimeError if it cannot be one."""
    if number is None or is_usable(number):
        return number
    raise RuntimeError(
        f"reward {reward.reference} gave {number}, expected a number from {-LARGEST_REWARD:g} to"
        f" {LARGEST_REWARD:g} or None; {_shown(sample)}"
    )
