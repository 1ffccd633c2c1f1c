"""What reaches a terminal is shown there, and does nothing there."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console

from realrl.apps.command_line import BAD_INPUT, OK, complain, run_command
from realrl.base.terminal import printable, show
from realrl.runtime.master.display import Progress
from realrl.runtime.master.summary import print_summary

SUMMARY = {"experiment": "é[b]", "trial": "t", "tokens_per_s": 1.0, "phases_s": {}, "wall_s": 3.0}


def test_what_a_terminal_would_obey_is_escaped():
    """Escapes of both kinds, bells, carriage returns, turned writing and halves of characters; no letters."""
    bad = "\x1b[31m \x9b2J \a \r \x00 \x7f \u202e \ud83d"
    assert printable(bad) == r"\x1b[31m \x9b2J \x07 \r \x00 \x7f \u202e \ud83d"
    good = "é 漢字 \U0001f600 \u0645 \\x1b\n\ttab"
    assert printable(good) == good


def test_every_way_out_escapes(capsys):
    """Messages, text of commands, a run's lines and its table; markup and codes of emojis are text."""
    complain("no \x1b[2J", BAD_INPUT)
    show("shown \x1b[2J\n")
    console = Console(file=sys.stdout, width=80)
    with Progress(range(1), console) as progress:
        progress.say("said \x1b[2J [red] :smile:")
    print_summary({**SUMMARY, "checkpoint": "c\x1b[2J[red]"}, console)
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err and err == "realrl: error: no \\x1b[2J\n"
    for text in (r"shown \x1b[2J", r"said \x1b[2J [red] :smile:", r"c\x1b[2J[red]", "é[b]/t"):
        assert text in out


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_no_encoding_ends_a_command(monkeypatch, encoding):
    """What a terminal's encoding lacks is escaped, and tables have plain lines."""
    written = {name: io.BytesIO() for name in ("stdout", "stderr")}
    for name, stream in written.items():
        monkeypatch.setattr(sys, name, io.TextIOWrapper(stream, encoding=encoding, errors="strict"))

    def command(_) -> int:
        print("漢 \udce9")
        print_summary({**SUMMARY, "checkpoint": "漢字"})
        sys.stdout.flush()
        return OK

    assert run_command(command, []) == OK
    text = written["stdout"].getvalue().decode(encoding)
    assert r"\udce9" in text and ("漢字" if encoding == "utf-8" else r"\u6f22\u5b57") in text


def test_paths_are_whole():
    """In a file or a pipe on one line, however long; in a narrow terminal over several, without a gap."""
    path = "/" + "a" * 300 + "/" + "b" * 300
    for options, is_one_line in (({}, True), ({"force_terminal": True, "color_system": None}, False)):
        text = io.StringIO()
        print_summary({**SUMMARY, "checkpoint": path}, Console(file=text, width=80, **options))
        assert (path in text.getvalue()) == is_one_line
        assert text.getvalue().count("a") >= 300 and text.getvalue().count("b") >= 300
        assert "…" not in text.getvalue()


def test_arguments_that_are_no_text_are_refused(capsys):
    """Bytes of a file's name that are no UTF-8 could be in no config, and in no message to a worker."""
    assert run_command(lambda _: OK, ["runs_dir=caf\udce9"]) == BAD_INPUT
    assert capsys.readouterr().err.startswith(r"realrl: error: runs_dir=caf\udce9: expected an argument in")
