"""Replays an event log: tells a scheduler what another one was told, and compares what they send."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from realrl.program.event_log import Head, LoggedEvent, Sent, read_events, recognised
from realrl.program.scheduler import Scheduler


class ReplayDiffers(Exception):
    """The replayed scheduler sent something else than the log says."""


def replay(scheduler: Scheduler, head: Head, lines: Iterable[bytes]) -> Iterator[LoggedEvent]:
    """Tell a scheduler each event of a log; yield it once the scheduler has sent what the log says.

    `scheduler` is as the log's head says, `lines` follow the head.

    Raises:
        ReplayDiffers: the scheduler sent something else than the log says, with the line.
        ValueError: a line that is no line of a log.
    """
    for logged in read_events(head, lines):
        sent = recognised(scheduler.handle(logged.event))
        if sent != logged.sent:
            expected = _in_words(logged.sent)
            raise ReplayDiffers(f"line {logged.line}: expected {expected}, the replay sent {_in_words(sent)}")
        yield logged


def _in_words(sent: Iterable[Sent]) -> str:
    words = [f"{one.seq} {one.what} ({one.checksum:08x})" for one in sent]
    return ", ".join(words) or "nothing"
