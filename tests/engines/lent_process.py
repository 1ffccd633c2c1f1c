"""A vLLM process that opens device memory by a rehearsed driver.

    python -m tests.engines.lent_process LIBRARY OPENS SERVER DESCRIPTOR

OPENS is `opens` or `refuses`. SERVER is `vllm`, or `files`, which needs no vLLM: it writes each version of
the weights to the model's directory.
"""

from __future__ import annotations

import sys
from pathlib import Path

from safetensors.torch import save_file

from realrl.engines.vllm import process
from realrl.engines.vllm.borrowing import Borrower
from realrl.engines.vllm.messages import Adopt, Load, Probe, Ready, Reply, Request, Sleep, Start
from tests.rehearsal.driver import rehearsed


class FilesServer:
    """Loads weights as vLLM does: their memory is read until they are adopted."""

    def __init__(self, tell: object) -> None:
        self._borrower = Borrower(pins=False)
        self._loaded: list[dict] = []

    def handle(self, request: Request) -> Reply:
        match request:
            case Start():
                self._folder = Path(request.directory)
            case Probe():
                return process._probed(request)
            case Load():
                self._loaded.append(self._borrower.tensors(request.memory, request.dtype, request.views))
            case Adopt():
                self._write(request.version)
            case Sleep():
                pass
        return Ready()

    def _write(self, version: int) -> None:
        # What is lent for device memory was opened once, whatever the number of parts.
        parts = [{name: tensor.clone() for name, tensor in part.items()} for part in self._loaded]
        self._loaded.clear()
        self._borrower.give_back()
        whole = {name: tensor.contiguous() for part in parts for name, tensor in part.items()}
        save_file(whole, self._folder / f"version-{version}.safetensors", {"parts": str(len(parts))})


def main() -> int:
    library, opens, server, descriptor = sys.argv[1:]
    sys.argv[1:] = [descriptor]
    if server == "files":
        process.Server = FilesServer
    with rehearsed(Path(library)) as driver:
        if opens == "refuses":
            driver.refuse_to_open()
        return process.main()


if __name__ == "__main__":
    sys.exit(main())
