"""Runs vLLM in a process of its own, so that what it does to its process is not done to a worker.

    python -m realrl.engines.vllm.process DESCRIPTOR      of a socket to the worker that started it

The process ends with its worker, or when that closes the socket. Heavy imports follow once it is bound to it.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import msgspec

from realrl.base.listeners import closed_when_left
from realrl.base.parent import PARENT_VARIABLE, die_with_parent
from realrl.engines.vllm.protocol import (
    Adopt,
    Failed,
    Generate,
    Generated,
    Load,
    Probe,
    Probed,
    Ready,
    Reply,
    Request,
    Response,
    Sleep,
    Start,
    Working,
)

_BACKEND = "realrl"
_TELLS_EVERY_S = 0.5


class Server:
    """Carries out requests, the first of which is `Start`."""

    def __init__(self, tell: Callable[[Working], None]) -> None:
        """`tell` sends a message that is no reply."""
        self._tell, self._told_s = tell, time.monotonic()
        self._version: int | None = None
        self._is_asleep = False
        self._is_loading = False
        self._temperature = 1.0

    def handle(self, request: Request) -> Reply:
        """Carry out a request; return the reply to it."""
        match request:
            case Start():
                self._start(request)
            case Probe():
                return _probed(request)
            case Load():
                self._load(request)
            case Adopt():
                self._adopt(request)
            case Sleep():
                self._sleep()
            case Generate():
                return self._generate(request)

        return Ready()

    def _start(self, start: Start) -> None:
        from vllm import LLM
        from vllm.config import WeightTransferConfig
        from vllm.distributed.weight_transfer import WeightTransferEngineFactory

        WeightTransferEngineFactory.register_engine(
            _BACKEND, "realrl.engines.vllm.weights", "SharedMemoryEngine"
        )
        self._can_sleep = start.device != "cpu"

        # What vLLM and gloo listen at is for others of their kind, which there are not. From 0.32 on vLLM's
        # store is a file, and NCCL opens ports when it connects ranks, which one rank never does.
        with closed_when_left():
            self._llm = LLM(
                start.directory,
                dtype=start.dtype,
                load_format="dummy",
                trust_remote_code=False,
                generation_config="vllm",
                max_model_len=start.max_tokens,
                max_num_seqs=start.max_sequences,
                kv_cache_memory_bytes=start.cache_bytes,
                # As the cache's size is given, merely what must be free at the start, beside the trainer.
                gpu_memory_utilization=0.01,
                enable_prefix_caching=True,
                enable_sleep_mode=self._can_sleep,
                # Compiling a CPU model takes longer than most runs would gain by it.
                enforce_eager=start.device == "cpu",
                logprobs_mode="raw_logprobs",
                weight_transfer_config=WeightTransferConfig(backend=_BACKEND),
                disable_log_stats=True,
            )

        self._rpc("init_weight_transfer_engine", init_info={})
        (model,) = self._llm.apply_model(lambda model: model)
        model.logits_processor.register_forward_hook(self._cooled)
        self._sleep()

    def _load(self, load: Load) -> None:
        if self._is_asleep:
            self._llm.wake_up()
            self._is_asleep = False

        self._version = None
        if not self._is_loading:
            self._rpc("start_weight_update")
            self._is_loading = True

        info = {"memory": load.memory, "dtype": load.dtype, "views": load.views}
        self._rpc("update_weights", update_info=info)

    def _adopt(self, adopt: Adopt) -> None:
        self._rpc("finish_weight_update")
        self._is_loading = False
        self._llm.reset_prefix_cache()
        self._version = adopt.version

    def _sleep(self) -> None:
        self._version = None
        if self._can_sleep and not self._is_asleep:
            self._llm.sleep(level=2)
            self._is_asleep = True

    def _generate(self, request: Generate) -> Generated:
        if self._version != request.version:
            raise RuntimeError(f"vLLM has version {self._version} of the weights, not {request.version}")
        self._temperature = request.config.training_temperature
        outputs = self._llm.generate(
            [{"prompt_token_ids": list(prompt)} for prompt in request.prompts],
            [self._sampling(request, seed) for seed in request.seeds],
            use_tqdm=False,
        )
        return Generated(version=self._version, responses=tuple(map(_response, outputs)))

    def _sampling(self, request: Generate, seed: int) -> Any:
        from vllm import SamplingParams

        config = request.config
        return SamplingParams(
            # The logits are divided by the temperature already.
            temperature=1.0 if config.temperature else 0.0,
            top_p=config.top_p,
            top_k=config.top_k,
            seed=seed,
            stop=list(config.stop),
            stop_token_ids=list(request.enders),
            ignore_eos=True,
            min_tokens=config.min_new_tokens,
            max_tokens=config.max_new_tokens,
            logprobs=0,
            detokenize=bool(config.stop),
            skip_special_tokens=False,
        )

    def _cooled(self, module: Any, inputs: Any, logits: Any) -> Any:
        """Return logits at the sampling temperature, before vLLM computes log-probabilities of them."""
        if time.monotonic() - self._told_s > _TELLS_EVERY_S:
            self._told_s = time.monotonic()
            self._tell(Working())

        return logits.float() / self._temperature

    def _rpc(self, method: str, **arguments: Any) -> None:
        self._llm.collective_rpc(method, kwargs=arguments)


def _probed(probe: Probe) -> Probed:
    from realrl.engines.vllm.borrowing import read_lent

    try:
        return Probed(content=read_lent(probe.memory))
    except OSError as error:  # the driver refuses; the worker then lends host memory
        return Probed(problem=str(error))


def _response(output: Any) -> Response:
    (sample,) = output.outputs
    chosen = (found[token].logprob for found, token in zip(sample.logprobs, sample.token_ids))
    return Response(
        tokens=tuple(sample.token_ids), logprobs=tuple(chosen), ended=sample.finish_reason == "stop"
    )


def serve(connection: Connection) -> NoReturn:
    """Answer requests.

    Raises:
        EOFError, ConnectionError: the other side has closed.
    """
    server = Server(lambda said: connection.send_bytes(msgspec.msgpack.encode(said)))
    decoder = msgspec.msgpack.Decoder(Request)

    while True:
        data = connection.recv_bytes()
        try:
            reply = server.handle(decoder.decode(data))
        except Exception as error:  # raised on the other side
            reply = Failed(error=f"{type(error).__name__}: {error}", traceback=traceback.format_exc())

        connection.send_bytes(msgspec.msgpack.encode(reply))


def main() -> int:
    """Answer the worker's requests until it closes the socket."""
    die_with_parent(int(os.environ[PARENT_VARIABLE]))
    with Connection(int(sys.argv[1])) as connection, suppress(EOFError, ConnectionError):
        serve(connection)
    return 0


if __name__ == "__main__":
    sys.exit(main())
