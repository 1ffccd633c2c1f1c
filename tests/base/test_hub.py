"""The real client of the Hugging Face Hub, in our child process, against a server of our own."""

from __future__ import annotations

import errno
import hashlib
import random
import shutil
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from realrl.base.hub import fetch as fetching
from realrl.base.hub import fetch_process as child
from realrl.base.hub.errors import explain
from realrl.base.hub.fetch import fetch
from realrl.base.hub.pulse import received_bytes
from realrl.base.hub.repo import Repo, parse_repo

TINY = Repo("model", "acme/tiny")
LONG = 25 << 20
"""Bytes; the client keeps what has arrived of a file in pieces of 10 MiB."""


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("acme/tiny", TINY),
        ("acme/tiny@refs/pr/3", Repo("model", "acme/tiny", "refs/pr/3")),
        ("acme/tiny-1.5_b@v1.0", Repo("model", "acme/tiny-1.5_b", "v1.0")),
        *(
            (other, None)
            for other in ("tiny", "./acme/tiny", "/acme/tiny", "a/b/c", "a/", "a/b@", "a/b@../c", "a/b c")
        ),
    ],
)
def test_what_names_a_model_of_the_hub(written, read):
    """All else is a path."""
    assert parse_repo("model", written) == read


def test_an_old_dataset_has_no_owner():
    assert parse_repo("dataset", "squad@main") == Repo("dataset", "squad", "main")


def test_a_download_that_breaks_off_goes_on_where_it_was(hub):
    content = random.Random(1).randbytes(LONG)
    hub.add("acme/tiny").commit({"model.safetensors": content})
    hub.breaks["model.safetensors"] = 1
    reply = fetch(TINY, ("model.safetensors",))
    assert Path(reply.directory, "model.safetensors").read_bytes() == content
    ranges = [asked for _, path, asked in hub.requests if path.startswith("/blobs/")]
    assert ranges == ["", f"bytes={10 << 20}-"]


def test_files_that_have_arrived_are_not_downloaded_again(hub):
    hub.add("acme/tiny").commit({"config.json": b"{}", "model.safetensors": bytes(1000)})
    hub.lost.add("model.safetensors")
    with pytest.raises(ValueError, match="start again"):
        fetch(TINY, ("*",))
    hub.lost.clear()
    hub.requests.clear()
    assert Path(fetch(TINY, ("*",)).directory, "model.safetensors").stat().st_size == 1000
    assert hub.downloads() == [hashlib.sha256(bytes(1000)).hexdigest()]


def test_two_processes_download_a_file_once(hub):
    hub.add("acme/tiny").commit({"model.safetensors": bytes(LONG)})
    with ThreadPoolExecutor(2) as pool:
        directories = {reply.directory for reply in pool.map(lambda _: fetch(TINY, ("*",)), range(2))}
    assert len(directories) == 1
    assert len(hub.downloads()) == 1


def test_a_hub_that_sends_nothing_is_given_up(hub, monkeypatch):
    """Whatever the client itself would wait for."""
    monkeypatch.setattr(fetching, "STALLED_S", 1.5)
    hub.add("acme/tiny").commit({"config.json": b"{}"})
    hub.silent_s = 30
    with pytest.raises(ValueError, match="nothing has arrived from the Hugging Face Hub"):
        fetch(TINY, ("*",))


def test_a_disk_that_is_too_small_is_said_before_the_download(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(child.NoRoom, match="0.1 MB more.*HF_HUB_CACHE"):
        child._announce(TINY, "0" * 40, 1, 100_000)


def test_a_disk_that_fills_up_meanwhile_is_said():
    full = OSError(errno.ENOSPC, "No space left on device")
    assert "is full; make room, or set HF_HUB_CACHE" in explain(full, TINY)


def test_a_cache_that_cannot_be_written_is_named(hub, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", "/dev/null/hub")
    hub.add("acme/tiny").commit({"config.json": b"{}"})
    with pytest.raises(ValueError, match="/dev/null/hub.*set HF_HUB_CACHE"):
        fetch(TINY, ("*",))


def test_a_fault_of_another_kind_is_not_the_hubs():
    assert explain(KeyError("x"), TINY) is None


def test_bytes_that_arrive_are_counted_as_they_do():
    """Before a library writes them anywhere; a file descriptor that is no connection does not count."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as one,
    ):
        before = received_bytes()
        other, _ = server.accept()
        with other:
            other.sendall(bytes(1234))
            one.recv(2000, socket.MSG_PEEK)
            assert received_bytes() - before == 1234
