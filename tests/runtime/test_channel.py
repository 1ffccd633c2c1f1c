"""The control channel, with workers and with strangers."""

import socket
import time

import msgspec
import pytest
import zmq

from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.api.messages import Done, Failed, Hello, KeyMove, Move, Reallocate, Setup, StepAside, ToWorker
from realrl.runtime.channel import KEYS_VARIABLE, KeyPair, MasterChannel, WorkerChannel

WAIT_S, SHORT_S = 5.0, 0.3


@pytest.fixture
def master():
    with MasterChannel("127.0.0.1", num_workers=2) as channel:
        yield channel


def _worker(master, rank=1):
    return WorkerChannel.from_environment(rank, master.environment())


def test_messages_arrive_whole_on_both_sides(master):
    """What is sent is received, with the sender's rank."""
    worker = _worker(master)
    worker.send(Hello())
    assert master.receive(WAIT_S) == (1, Hello())
    placement = Placement(DeviceMesh((0, 1)), ParallelLayout(dp=2))
    common = {"seq": 3, "ranks": (0, 1), "job": 2, "step": 1, "call": "gen"}
    key = KeyMove(dtypes={"ids": "int64"}, lengths={4: 9}, source={0: (4,)}, target={1: (4,)})
    for message in (
        Setup(recipe="r", config=b"{}", placements={"gen": placement}, store_host="h", store_port=1),
        Reallocate(
            **common,
            model="actor",
            source=placement,
            target=placement,
            into="actor",
            eta=1.0,
            engine="realrl",
            version=1,
        ),
        Move(**common, keys=(key,)),
    ):
        master.send([1], message)
        assert worker.receive() == message
    done = Done(seq=3, started_s=0.5, ended_s=1.5, metrics={"loss": (2.0, 4.0)}, records=[{"a": [1]}])
    worker.send(done)
    assert master.receive(WAIT_S) == (1, done)
    worker.close()


def test_a_worker_looks_at_what_has_arrived_and_receives_it_later(master):
    """In order, with what arrives after."""
    worker = _worker(master)
    worker.send(Hello())
    master.receive(WAIT_S)
    assert not worker.arrived()
    signs = [StepAside(seq=seq, ranks=(1,)) for seq in range(3)]
    master.send([1], signs[0])
    master.send([1], signs[1])
    deadline_s = time.monotonic() + WAIT_S
    while len(worker.arrived()) < 2 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert list(worker.arrived()) == signs[:2]
    master.send([1], signs[2])
    assert [worker.receive() for _ in signs] == signs
    worker.close()


def test_nobody_hears_or_speaks_without_the_keys(master):
    """A plain socket, one with keys of its own, and one that sends noise are not heard; the run goes on."""
    keys = master.environment()[KEYS_VARIABLE].split()
    impostor = WorkerChannel(0, master.address, keys[0], KeyPair.new())
    context = zmq.Context()
    plain = context.socket(zmq.DEALER)
    plain.identity = b"0"
    plain.connect(master.address)
    plain.send(msgspec.msgpack.encode(Hello()))
    impostor.send(Hello())
    host, port = master.address.removeprefix("tcp://").split(":")
    with socket.create_connection((host, int(port))) as noise:
        noise.sendall(b"\x80\x04GET / HTTP/1.1\r\n\r\n" * 100)
        assert master.receive(SHORT_S) is None
    worker = _worker(master)
    worker.send(Hello())
    assert master.receive(WAIT_S) == (1, Hello())
    plain.close(linger=0)
    context.term()
    impostor._socket.close(linger=0)
    worker.close()


@pytest.mark.parametrize(
    "frames",
    [
        [b"not msgpack"],
        [msgspec.msgpack.encode({"type": "Launch"})],
        [msgspec.msgpack.encode({"type": "Done", "seq": "three"})],
        [msgspec.msgpack.encode(Hello()), b"one too many"],
    ],
)
def test_what_does_not_fit_the_schema_is_dropped(master, frames, caplog):
    """Even from someone with the keys: it is logged, and the next message is heard."""
    worker = _worker(master)
    worker._socket.send_multipart(frames)
    assert master.receive(WAIT_S) is None
    assert "dropped" in caplog.text
    worker.send(Failed(seq=None, error="e", traceback="t"))
    assert master.receive(WAIT_S) == (1, Failed(seq=None, error="e", traceback="t"))
    worker.close()


def test_a_rank_that_the_run_does_not_have_is_dropped(master):
    """Two workers: there is no rank 7."""
    stranger = _worker(master, rank=7)
    stranger.send(Hello())
    assert master.receive(WAIT_S) is None
    stranger.close()


def test_keys_leave_the_environment():
    """So that a worker's children do not inherit them; and a worker without any says why it cannot start."""
    with MasterChannel("127.0.0.1", num_workers=1) as master:
        environment = master.environment()
        WorkerChannel.from_environment(0, environment).close()
        assert KEYS_VARIABLE not in environment
        with pytest.raises(ValueError, match="started by a launcher"):
            WorkerChannel.from_environment(0, environment)


def test_every_instruction_is_decodable():
    """Each class of the union has its own tag."""
    tags = {kind.__struct_config__.tag for kind in ToWorker.__args__}
    assert len(tags) == len(ToWorker.__args__)
