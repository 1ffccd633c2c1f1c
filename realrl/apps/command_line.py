"""What all commands share: exit codes, the parser, and the form of error messages."""

from __future__ import annotations

import argparse
import errno
import os
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from realrl.base.spelling import did_you_mean
from realrl.base.terminal import printable, tolerate_encodings
from realrl.runtime.failure import Terminated

OK = 0
FAILED = 1
BAD_INPUT = 2
INTERRUPTED = 130
TERMINATED = 143
_BAD_NAMES = (errno.ENAMETOOLONG, errno.ELOOP)
"""Errors of a path that no file can have, wherever it is looked for first."""
_NO_TEMPORARY = "No usable temporary directory"
"""The message of `tempfile`, which libraries ask for a folder when they are imported."""
_LONG_WORD = re.compile(r"\S{1000,}")
"""A word that is too long to be a path."""
_SHOWN_OF_LONG = 100
"""Characters of each end of a long word that a message shows."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are ValueErrors, with the nearest option for a misspelt one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def parse_known_args(self, args: Iterable[str] | None = None, namespace: Any = None) -> Any:
        """Parse arguments, and return those that are left.

        Raises:
            ValueError: an option is unknown, or given twice.
        """
        words = sys.argv[1:] if args is None else list(args)
        # argparse would rather complain about a required option that is missing than about its misspelling.
        self._check_options(words)
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        """Raise the error, with a hint at the help."""
        see = " See" if message.endswith("?") else "; see"
        raise ValueError(f"{message}{see} `{self.prog} --help`")

    def hint(self, option: str) -> str:
        """Return the end of a message about an unknown option: what was probably meant, if anything."""
        return did_you_mean(option, self._option_string_actions)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Check that a value is one of the choices of its argument."""
        if action.choices is None or value in action.choices:
            return
        choices = list(map(str, action.choices))
        hint = did_you_mean(str(value), choices)
        expected = f"expected one of {', '.join(choices)}, got {value!r}{hint}"
        raise argparse.ArgumentError(action, expected)

    def _check_options(self, words: Sequence[str]) -> None:
        """Check that every option is known, and given once."""
        known = self._option_string_actions
        times: Counter[str] = Counter()
        for word in words:
            # Words after this one are no options.
            if word == "--":
                break
            if word.startswith("--"):
                name, _, _ = word.partition("=")
                times[name] += 1
        for name in times:
            if name not in known:
                self.error(f"{name}: unknown option{self.hint(name)}")
        for name, count in times.items():
            # Flags may be repeated.
            takes_value = known[name].nargs != 0
            if count > 1 and takes_value:
                self.error(f"{name}: given {count} times; give it once")


def run_command(command: Callable[[Sequence[str]], int], argv: Sequence[str] | None) -> int:
    """Run a command and return its exit code, also if a user or a closed pipe ends it."""
    tolerate_encodings()
    given = sys.argv[1:] if argv is None else argv
    for word in given:
        if not _is_utf8(word):
            return complain(
                f"{word}: expected an argument in UTF-8; rename the file, or give another", BAD_INPUT
            )
    try:
        with _reporting_sigterm():
            code = command(given)
        # A closed pipe is found here, and not when the interpreter ends.
        sys.stdout.flush()
        return code
    except KeyboardInterrupt as error:
        return complain(str(error) or "stopped by Ctrl-C", INTERRUPTED)
    except Terminated as error:
        return complain(str(error), TERMINATED)
    except BrokenPipeError:
        # The interpreter flushes stdout at its end, which must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except OSError as error:
        return _complain_about_path(error)


def _complain_about_path(error: OSError) -> int:
    """Report a path that no file can have, or that there is no temporary folder; raise any other error."""
    reason = error.strerror or ""
    if reason.startswith(_NO_TEMPORARY):
        return complain(f"{reason}; set TMPDIR to a folder that can be written", BAD_INPUT)
    if error.errno in _BAD_NAMES and isinstance(error.filename, str):
        return complain(f"{error.filename}: {reason}; give another path", BAD_INPUT)
    raise error


@contextmanager
def _reporting_sigterm() -> Iterator[None]:
    """Report that SIGTERM ends this command, where nothing else handles it, as while a run starts.

    The process ends at once, as it would without a handler: an exception could be caught by a library that
    is imported at that moment.
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
    """End the process, and say why."""
    # Not through sys.stderr, whose lock the interrupted code may hold.
    with suppress(OSError):
        os.write(2, b"realrl: error: stopped by SIGTERM\n")
    os._exit(TERMINATED)


def complain(message: str, code: int) -> int:
    """Write why a command ends with an error, and return its exit code."""
    shortened = _LONG_WORD.sub(_ends, message)
    sys.stderr.write(f"realrl: error: {printable(shortened)}\n")
    return code


def mention(message: str) -> None:
    """Write a note for the user; the command continues."""
    sys.stderr.write(f"realrl: note: {printable(message)}\n")


def _ends(match: re.Match[str]) -> str:
    """Return both ends of a long word."""
    word = match.group()
    begin = word[:_SHOWN_OF_LONG]
    end = word[-_SHOWN_OF_LONG:]
    return f"{begin}…{end}"


def _is_utf8(word: str) -> bool:
    """Return whether an argument was in UTF-8.

    Python decodes other bytes to lone surrogates, which no config and no message can hold.
    """
    return not any("\ud800" <= character <= "\udfff" for character in word)
