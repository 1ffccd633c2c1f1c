"""The control channel, with workers and with strangers."""

import socket
import time

import msgspec
import pytest
import zmq

from realrl.api.graph import CallKind, ModelFunctionCall
from realrl.api.mesh import DeviceMesh, ParallelLayout, Placement
from realrl.api.messages import Digests, Done, Failed, Hello, KeyMove, Preempt, Setup
from realrl.program.instructions import Move, Reallocate
from realrl.runtime.control import master_channel
from realrl.runtime.control.channel import (
    ADDRESS_VARIABLE,
    KEYS_VARIABLE,
    KeyPair,
)
from realrl.runtime.control.master_channel import MasterChannel
from realrl.runtime.control.wire import PIECE_BYTES, TO_MASTER, TO_WORKER, ToWorker
from realrl.runtime.control.worker_channel import WorkerChannel
from realrl.runtime.failure import RunFailed
from tests.security.wires import Tap

WAIT_S, SHORT_S = 5.0, 0.3
DIGESTS = Digests(rows="3 rows", held_out="no rows", models={"actor": "abc"})
STORE = {"store": "port:h:1", "hosts": ("h",), "digests": DIGESTS}


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
    common = {"seq": 3, "job": 2, "step": 1}
    key = KeyMove(dtypes={"ids": "int64"}, lengths={4: 9}, source={0: (4,)}, target={1: (4,)})
    for message in (
        Setup(recipe="r", config=b"{}", placements={"gen": placement}, **STORE),
        Reallocate(
            **common,
            call="gen",
            model="actor",
            source=placement,
            target=placement,
            into="actor",
            eta=1.0,
            engine="realrl",
            version=1,
        ),
        Move(
            **common,
            function=ModelFunctionCall("gen", None, CallKind.COMPUTE, ("ids",)),
            placement=placement,
            keys=("ids",),
            producers=("one",),
            moves=(key,),
        ),
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
    signs = [Preempt(seq=seq, ranks=(1,)) for seq in range(3)]
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


def _nested(depth):
    """A report with a record that is a list of lists of lists..."""
    flat = msgspec.msgpack.encode(Done(seq=0, started_s=0, ended_s=0, records=[{"a": 0}]))
    return flat.replace(b"\xa1a\x00", b"\xa1a" + b"\x91" * depth + b"\x00")


@pytest.mark.parametrize(
    "frames",
    [
        [b"not msgpack"],
        [msgspec.msgpack.encode({"type": "Launch"})],
        [msgspec.msgpack.encode({"type": "Done", "seq": "three"})],
        [msgspec.msgpack.encode(Hello()), b"one too many"],
        [_nested(100_000)],
        [b"\xdd\xff\xff\xff\xff"],
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


@pytest.mark.parametrize("identity", [b"7", b"-1", b"01", b" 1", b"+1", "\u0661".encode(), b"1\0", b"one"])
def test_a_rank_that_the_run_does_not_have_is_dropped(master, identity):
    """Two workers: there is no rank 7, and another spelling of 1 is no rank 1."""
    stranger = _end(master, identity)
    stranger.send(msgspec.msgpack.encode(Hello()))
    assert master.receive(WAIT_S) is None
    stranger.close(linger=0)
    stranger.context.term()


def _end(master, identity):
    """A socket with the run's keys."""
    server, public, secret = (key.encode() for key in master.environment()[KEYS_VARIABLE].split())
    end = zmq.Context().socket(zmq.DEALER)
    end.identity, end.curve_serverkey = identity, server
    end.curve_publickey, end.curve_secretkey = public, secret
    end.connect(master.address)
    return end


def test_nobody_takes_the_place_of_a_worker_that_is_there(master):
    """With all keys and the same rank: neither what it says is heard, nor does it hear what is said."""
    worker = _worker(master)
    worker.send(Hello())
    assert master.receive(WAIT_S) == (1, Hello())
    double = _end(master, b"1")
    double.send(msgspec.msgpack.encode(Failed(seq=None, error="a lie", traceback="")))
    assert master.receive(SHORT_S) is None
    master.send([1], Preempt(seq=0, ranks=(1,)))
    assert worker.receive() == Preempt(seq=0, ranks=(1,))
    assert not double.poll(SHORT_S * 1000)
    double.close(linger=0)
    double.context.term()
    worker.close()


def test_a_flood_of_nonsense_costs_a_line_for_each_power_of_ten(master, caplog):
    """And what comes after it is heard."""
    worker = _worker(master)
    for _ in range(250):
        worker._socket.send(b"\n\x1b[2J not a message")
    worker.send(Hello())
    while (heard := master.receive(WAIT_S)) is None:
        pass
    assert heard == (1, Hello())
    assert [record.args[0] for record in caplog.records] == [1, 10, 100]
    assert all(
        len(record.getMessage()) < 300 and record.getMessage().isprintable() for record in caplog.records
    )
    worker.close()


def test_long_messages_come_in_pieces_and_longer_ones_are_not_sent(master, monkeypatch):
    """A piece is what a stranger could send; the sender says what is too long."""
    worker = _worker(master)
    done = Done(seq=3, started_s=0, ended_s=1, records=[{"text": "x" * (3 * PIECE_BYTES)}])
    worker.send(done)
    assert master.receive(WAIT_S) == (1, done)
    setup = Setup(recipe="r", config=b"x" * 3 * PIECE_BYTES, placements={}, **STORE)
    master.send([1], setup)
    assert worker.receive() == setup
    for wire in (TO_MASTER, TO_WORKER):
        monkeypatch.setattr(wire, "_largest_bytes", 2 * PIECE_BYTES)
    with pytest.raises(ValueError, match="Done has 3145.* bytes, but at most 2097152 .* smaller batch_size"):
        worker.send(done)
    with pytest.raises(RunFailed, match="Setup has"):
        master.send([1], setup)
    worker._socket.send_multipart([b"x" * PIECE_BYTES] * 3)
    assert master.receive(WAIT_S) is None
    worker.close()


def test_a_frame_longer_than_a_piece_ends_the_connection(master):
    """Of somebody with the keys, too; the next one is heard."""
    stranger = _end(master, b"1")
    stranger.send(b"x" * (PIECE_BYTES + 1000))
    assert master.receive(SHORT_S) is None
    stranger.close(linger=0)
    stranger.context.term()
    worker = _worker(master)
    worker.send(Hello())
    assert master.receive(WAIT_S) == (1, Hello())
    worker.close()


def test_a_session_that_is_played_again_is_not_heard(master):
    """All that a worker said, byte by byte, on another connection: the master's half of the keys is new."""
    host, port = master.address.removeprefix("tcp://").split(":")
    tap = Tap(host, int(port))
    environment = master.environment() | {ADDRESS_VARIABLE: tap.address}
    worker = WorkerChannel.from_environment(1, environment)
    worker.send(Failed(seq=None, error="e", traceback=""))
    assert master.receive(WAIT_S) == (1, Failed(seq=None, error="e", traceback=""))
    worker.close()
    tap.close()
    assert b"Failed" not in tap.heard, "it is encrypted"
    for _ in range(3):
        with socket.create_connection((host, int(port))) as again:
            again.sendall(tap.heard)
            assert master.receive(SHORT_S) is None


def test_many_silent_strangers_do_not_keep_a_worker_out(master):
    """More than a process usually may have files."""
    host, port = master.address.removeprefix("tcp://").split(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(1500)]
    worker = _worker(master)
    worker.send(Hello())
    assert master.receive(WAIT_S) == (1, Hello())
    with open("/dev/null"):
        worker.close()
    for connection in silent:
        connection.close()


def test_once_all_are_there_only_their_hosts_can_connect(master, caplog):
    """127.0.0.2 is another address of this host. Without a filter, the log says what protects."""
    caplog.set_level("INFO")
    host, port = master.address.removeprefix("tcp://").split(":")
    worker = _worker(master)
    worker.send(Hello(addresses=("10.0.0.1",)))
    master.receive(WAIT_S)
    assert master.hosts == {"127.0.0.1"} and master.data_hosts == {"10.0.0.1"}
    master.admit_only_hosts()
    socket.create_connection((host, int(port)), SHORT_S, ("127.0.0.1", 0)).close()
    if "to the workers' hosts only" in caplog.text:
        with pytest.raises(TimeoutError):
            socket.create_connection((host, int(port)), SHORT_S, ("127.0.0.2", 0))
    else:
        assert "is protected by the run's keys alone" in caplog.text
    worker.close()


@pytest.mark.parametrize("answer", [lambda *_, **__: False, None], ids=["out of reach", "no address"])
def test_a_host_that_does_not_reach_itself_is_named_at_once(monkeypatch, answer):
    """As where the loopback interface is down, or has no address."""
    if answer:
        monkeypatch.setattr(master_channel, "answers", answer)
    began_s = time.monotonic()
    with pytest.raises(
        RunFailed, match="127.0.0.1; bring its network interface up" if answer else "listen at"
    ):
        MasterChannel("127.0.0.1" if answer else "192.0.2.77", num_workers=1)
    assert time.monotonic() - began_s < WAIT_S


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
