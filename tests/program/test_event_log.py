"""Event logs: a scheduler that is told the same events sends the same instructions."""

import io

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realrl.api.mesh import ExecutionPlan, ParallelLayout
from realrl.api.messages import Done
from realrl.program import scheduler
from realrl.program.event_log import LogWriter, read_events, read_head, recognised
from realrl.program.events import Reported
from realrl.program.instructions import Start
from realrl.program.program import Asynchrony
from realrl.program.replay import ReplayDiffers, replay
from realrl.program.scheduler import Scheduler
from realrl.program.scheduler_state import SchedulerState
from tests.program.graphs import PretendWorkers, graphs, make_jobs, model_configs, place, plans, ppo_graph


class Logged(Scheduler):
    """A scheduler with logs that begin at some of its events, and with every event that it was told."""

    begin_at = (0,)

    def __init__(self, versions=None) -> None:
        super().__init__(versions)
        self.logs: list[tuple[LogWriter, io.BytesIO]] = []
        self.num_events = 0

    def handle(self, event):
        if self.num_events in self.begin_at:
            writer = LogWriter("0", _through_bytes(self.state()))
            self.logs.append((writer, io.BytesIO(writer.head())))
        self.num_events += 1
        emitted = super().handle(event)
        for writer, file in self.logs:
            file.seek(0, io.SEEK_END)
            file.write(writer.lines(event, emitted, 0.0))
        return emitted


def _through_bytes(state: SchedulerState) -> SchedulerState:
    return msgspec.json.decode(msgspec.json.encode(state), type=SchedulerState)


def _logs(graph, plan, begin_at, seed=0, models=None, max_staleness=0, **options) -> list[bytes]:
    """The logs of a run of pretended workers, each begun at one of the events numbered `begin_at`."""
    made: list[Logged] = []

    def scheduler() -> Logged:
        made.append(Logged())
        made[0].begin_at = begin_at
        return made[0]

    jobs = make_jobs(graph, plan, 3, models=models, **options)
    workers = PretendWorkers(graph, plan, seed)
    workers.run(jobs, 2, max_staleness, scheduler)
    return [file.getvalue() for _, file in made[0].logs]


def _replayed(log: bytes) -> int:
    file = io.BytesIO(log)
    head = read_head(file.readline())
    return sum(1 for _ in replay(Scheduler.resumed(head.state), head, file))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_log_is_replayed_from_wherever_it_begins(data):
    """Whatever the graph, the plan, staleness and timing: a scheduler made of the state at any event, as it
    was written, sends what the first one sent from there on."""
    graph = data.draw(graphs())
    plan, max_staleness = data.draw(plans(graph)), data.draw(st.integers(0, 2))
    begin_at = (0, *data.draw(st.lists(st.integers(1, 200), max_size=4, unique=True)))
    options = {
        "models": data.draw(model_configs(graph)),
        "asynchrony": Asynchrony(max_staleness > 0, max_staleness > 0 and data.draw(st.booleans())),
        "recovers": data.draw(st.booleans()),
    }
    seed = data.draw(st.integers(0, 999))
    logs = _logs(graph, plan, begin_at, seed, max_staleness=max_staleness, **options)
    numbers = [_replayed(log) for log in logs]
    assert numbers[0] == max(numbers) > 0


@pytest.fixture(scope="module")
def log() -> bytes:
    """The log of three steps of PPO on two ranks."""
    graph = ppo_graph()
    plan = ExecutionPlan({name: place(0, ParallelLayout(dp=2)) for name in graph.calls})
    return _logs(graph, plan, (0,))[0]


def test_programs_and_jobs_are_written_once(log):
    """A step is told in the lines of its reports: what a program holds does not come again."""
    lines = log.splitlines()
    kinds = [msgspec.json.decode(line)["type"] for line in lines]
    assert kinds.count("JobOpened") == 6
    assert kinds.count("Instructions") == 2
    assert kinds[0] == "Head"


def test_another_scheduler_is_found_out(log, monkeypatch):
    """A planted fault: one that names other versions sends other instructions."""

    def of_another_version(**known):
        return Start(**{**known, "version": known["version"] + 1})

    monkeypatch.setattr(scheduler, "Start", of_another_version)
    with pytest.raises(ReplayDiffers, match=r"line 4: expected 0 .*, the replay sent 0 "):
        _replayed(log)


def test_a_line_that_a_kill_cut_short_is_left_out(log):
    assert _replayed(log[:-9]) == _replayed(log) - 1


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (lambda log: b"{}\n", "line 1: no line of an event log"),
        (lambda log: b"".join(log.splitlines(keepends=True)[1:]), "line 1: expected the head"),
        (lambda log: log.replace(b'"format":2', b'"format":9', 1), "line 1: the log is of format 9"),
        (lambda log: log + b"nonsense\n", "no line of an event log"),
        (lambda log: log + log, "a second head"),
    ],
)
def test_what_is_no_log_is_refused(log, damaged, message):
    with pytest.raises(ValueError, match=message):
        _replayed(damaged(log))


def test_no_text_of_a_sample_is_logged():
    """Reports are logged without records and metrics."""
    done = Done(
        seq=0, started_s=0.0, ended_s=1.0, records=[{"response": "secret"}], metrics={"m": (1.0, 1.0)}
    )
    line = LogWriter("0", SchedulerState()).lines(Reported(0, done), (), 0.0)
    assert b"secret" not in line and b'"m"' not in line


def test_the_words_of_an_instruction_are_for_people(log):
    file = io.BytesIO(log)
    head = read_head(file.readline())
    sent = [one.what for logged in read_events(head, file) for one in logged.sent]
    assert sent[0] == "call actor_gen of step 0"
    assert recognised(()) == ()
