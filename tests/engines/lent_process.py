"""A vLLM process that opens device memory by a rehearsed driver, or by CUDA's, and may be without vLLM.

    python -m tests.engines.lent_process LIBRARY OPENS SERVER DESCRIPTOR

LIBRARY is a rehearsed driver, or `cuda`. OPENS is `opens` or `refuses`. SERVER is `vllm`; `files`, which
writes each version of the weights to the model's directory; or `copies`, which copies them into memory of its
own, and when it sleeps writes there what each tensor sums to.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from realrl.engines.vllm import process
from realrl.engines.vllm.borrowing import Borrower
from realrl.engines.vllm.protocol import Adopt, Load, Probe, Ready, Reply, Request, Sleep, Start
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


class CopiesServer:
    """Copies weights as vLLM does, tensor by tensor, on the device."""

    def __init__(self, tell: object) -> None:
        self._borrower = Borrower(pins=True)
        self._weights: dict[str, torch.Tensor] = {}

    def handle(self, request: Request) -> Reply:
        match request:
            case Start():
                self._folder = Path(request.directory)
            case Probe():
                return process._probed(request)
            case Load():
                self._load(request)
            case Adopt():
                torch.cuda.synchronize()
                self._borrower.give_back()
            case Sleep():
                sums = {name: weight.double().sum().item() for name, weight in self._weights.items()}
                (self._folder / "sums.json").write_text(json.dumps(sums))
        return Ready()

    def _load(self, load: Load) -> None:
        for name, tensor in self._borrower.tensors(load.memory, load.dtype, load.views).items():
            own = self._weights.get(name)
            if own is None:
                own = self._weights[name] = torch.empty_like(tensor, device="cuda")
            own.copy_(tensor, non_blocking=True)


SERVERS = {"files": FilesServer, "copies": CopiesServer}


def main() -> int:
    library, opens, server, descriptor = sys.argv[1:]
    sys.argv[1:] = [descriptor]
    process.Server = SERVERS.get(server, process.Server)
    if library == "cuda":
        return process.main()
    with rehearsed(Path(library)) as driver:
        if opens == "refuses":
            driver.refuse_to_open()
        return process.main()


if __name__ == "__main__":
    sys.exit(main())
