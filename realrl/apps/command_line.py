"""What the commands share: exit codes, the parser, and one message for whatever is refused."""

from __future__ import annotations

import argparse
import errno
import os
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from realrl.base.spelling import did_you_mean
from realrl.base.terminal import printable, tolerate_encodings
from realrl.runtime.failure import Terminated

OK, FAILED, BAD_INPUT, INTERRUPTED, TERMINATED = 0, 1, 2, 130, 143
_BAD_NAMES = (errno.ENAMETOOLONG, errno.ELOOP)
"""Errors of a path that no file can have, whoever looks for it first."""
_NO_TEMPORARY = "No usable temporary directory"
"""What `tempfile` says, which libraries ask for a folder as they are imported."""
_LONG_WORD = re.compile(r"\S{1000,}")
_SHOWN_OF_LONG = 100
"""Characters of both ends of a word that is no path, which are shown in a message."""


class Parser(argparse.ArgumentParser):
    """A parser that refuses with a ValueError: one message, with the nearest option for a misspelt one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        # Before argparse looks: it would name a required option that is missing rather than its misspelling.
        self._check_options(sys.argv[1:] if args is None else args)
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        see = " See" if message.endswith("?") else "; see"
        raise ValueError(f"{message}{see} `{self.prog} --help`")

    def hint(self, option: str) -> str:
        """The end of a message about an unknown option: what was probably meant, if anything is near."""
        return did_you_mean(option, self._option_string_actions)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            hint = did_you_mean(str(value), map(str, action.choices))
            expected = f"expected one of {', '.join(map(str, action.choices))}, got {value!r}{hint}"
            raise argparse.ArgumentError(action, expected)

    def _check_options(self, words: Sequence[str]) -> None:
        """Refuse an option that is unknown, or given twice."""
        before_dashes = list(words)[: list(words).index("--")] if "--" in words else words
        names = [word.partition("=")[0] for word in before_dashes if word.startswith("--")]
        known = self._option_string_actions
        for name in names:
            if name not in known:
                self.error(f"{name}: unknown option{self.hint(name)}")
        for name, count in Counter(names).items():
            if count > 1 and known[name].nargs != 0:
                self.error(f"{name}: given {count} times; give it once")


def run_command(command: Callable[[Sequence[str]], int], argv: Sequence[str] | None) -> int:
    """A command's exit code, also where a person or a closed pipe ends it."""
    tolerate_encodings()
    given = sys.argv[1:] if argv is None else argv
    for word in given:
        if not _is_utf8(word):
            return complain(
                f"{word}: expected an argument in UTF-8; rename the file, or give another", BAD_INPUT
            )
    try:
        with _saying_sigterm():
            code = command(given)
        # What is still buffered meets a closed pipe here, and not when the interpreter ends.
        sys.stdout.flush()
        return code
    except KeyboardInterrupt as error:
        return complain(str(error) or "stopped by Ctrl-C", INTERRUPTED)
    except Terminated as error:
        return complain(str(error), TERMINATED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as error:
        if (error.strerror or "").startswith(_NO_TEMPORARY):
            what = f"{error.strerror}; set TMPDIR to a folder that can be written"
            return complain(what, BAD_INPUT)
        if error.errno not in _BAD_NAMES or not isinstance(error.filename, str):
            raise
        return complain(f"{error.filename}: {error.strerror}; give another path", BAD_INPUT)


@contextmanager
def _saying_sigterm() -> Iterator[None]:
    """Say that SIGTERM ends this command, where nothing else handles it: while a run starts, for one.

    It ends at once, as it would without a handler: an exception could be caught by whatever is imported.
    """
    is_ours = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if not is_ours or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, _end_by_sigterm)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end_by_sigterm(*_: object) -> NoReturn:
    # Not by sys.stderr, which this may have interrupted.
    with suppress(OSError):
        os.write(2, b"realrl: error: stopped by SIGTERM\n")
    os._exit(TERMINATED)


def complain(message: str, code: int) -> int:
    """Say why a command ends so, and return its exit code."""
    sys.stderr.write(f"realrl: error: {printable(_LONG_WORD.sub(_ends, message))}\n")
    return code


def mention(message: str) -> None:
    """Say what a person should know though nothing ends by it."""
    sys.stderr.write(f"realrl: note: {printable(message)}\n")


def _ends(match: re.Match[str]) -> str:
    word = match.group()
    return f"{word[:_SHOWN_OF_LONG]}…{word[-_SHOWN_OF_LONG:]}"


def _is_utf8(word: str) -> bool:
    """Whether an argument was in UTF-8: what was not is no text that a config or a message could hold."""
    return not any("\ud800" <= character <= "\udfff" for character in word)
