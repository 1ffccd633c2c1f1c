"""Where in a master and in its workers faults come about: the real ones, but for a call before each phase."""

from __future__ import annotations

import os
from pathlib import Path

from realrl.program.instructions import Flush, Instruction, Reallocate, RunCall, Save, Snapshot
from tests.faults.faults import MASTER, VARIABLE, Injector

_CALLS = {"actor_gen": "generate", "reward": "reward", "actor_train": "train", "critic_train": "train"}


def phase_of(instruction: object) -> str | None:
    match instruction:
        case RunCall():
            return None if instruction.evaluating else _CALLS.get(instruction.call)
        case Reallocate():
            return "reallocate"
        case Save() | Snapshot() | Flush():
            return "save"


def watch_worker(rank: int) -> None:
    from realrl.runtime.control.wire import ToWorker
    from realrl.runtime.control.worker_channel import WorkerChannel
    from realrl.runtime.worker import worker_setup as building

    injector = Injector(Path(os.environ[VARIABLE]), rank)
    receive, build = WorkerChannel.receive, building.build_worker

    def watched_receive(self: WorkerChannel) -> ToWorker:
        instruction = receive(self)
        if phase := phase_of(instruction):
            injector.at(phase, instruction.step)
        return instruction

    def watched_build(*arguments, **keywords):
        injector.at("load", 0)
        return build(*arguments, **keywords)

    WorkerChannel.receive, building.build_worker = watched_receive, watched_build


def watch_master() -> None:
    from realrl.runtime.master.crew import Crew

    injector = Injector(Path(os.environ[VARIABLE]), MASTER)
    send, set_up = Crew.send, Crew.set_up

    def watched_send(self: Crew, instruction: Instruction) -> None:
        if phase := phase_of(instruction):
            injector.at(phase, instruction.step)
        send(self, instruction)

    def watched_set_up(self: Crew, *arguments) -> None:
        injector.at("load", 0)
        set_up(self, *arguments)

    Crew.send, Crew.set_up = watched_send, watched_set_up
