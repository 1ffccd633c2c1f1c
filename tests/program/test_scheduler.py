"""The scheduler, driven by workers that only pretend."""

import random
from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realrl.api.batch import Sample
from realrl.api.config import ModelConfig
from realrl.api.graph import OWN_ENGINE, Blend, CallKind, DataflowGraph, ModelFunctionCall, Redraw
from realrl.api.mesh import ExecutionPlan, ParallelLayout
from realrl.api.messages import Done
from realrl.program.events import Job, Reported
from realrl.program.instructions import Forget, Move, Offload, Reallocate, Release, RunCall, Save, Snapshot
from realrl.program.jobs import in_order
from realrl.program.program import Asynchrony, compile_program, home_placements
from realrl.program.scheduler import Hazards, Scheduler
from tests.program.graphs import (
    PretendWorkers,
    graphs,
    holders_after,
    make_jobs,
    model_configs,
    place,
    plans,
    ppo_graph,
)

NUM_STEPS = 3


@st.composite
def runs(draw):
    graph = draw(graphs())
    plan = draw(plans(graph))
    workers = PretendWorkers(graph, plan, draw(st.integers(0, 999)))
    workers.models = draw(model_configs(graph))
    max_staleness = draw(st.integers(0, 3))
    workers.asynchrony = Asynchrony(max_staleness > 0, max_staleness > 0 and draw(st.booleans()))
    options = {"models": workers.models, "asynchrony": workers.asynchrony, "recovers": draw(st.booleans())}
    jobs = make_jobs(graph, plan, NUM_STEPS, **options)
    workers.stages = list(in_order(jobs, max_staleness))
    workers.run(jobs, draw(st.integers(1, 3)), max_staleness)
    return graph, plan, workers


@settings(max_examples=60, deadline=None)
@given(runs())
def test_every_worker_follows_one_order(run):
    """Instructions come in ascending `seq`, each once, so each worker's order is the same one, restricted.

    That no set of workers waits in a circle is asserted while the run goes on.
    """
    _, _, workers = run
    seqs = [instruction.seq for instruction in workers.emitted]
    assert seqs == sorted(set(seqs))
    assert sorted(workers.finished) == seqs


@settings(max_examples=60, deadline=None)
@given(runs())
def test_every_call_runs_once_a_step_on_every_sample(run):
    """Nothing is lost or done twice, whatever the order of events."""
    graph, _, workers = run
    calls = [i for i in workers.emitted if isinstance(i, RunCall)]
    assert sorted((c.step, c.call) for c in calls) == sorted(
        (step, name) for step in range(NUM_STEPS) for name in graph.calls
    )
    for call in calls:
        samples = sorted(pair for share in call.shares for pair in share)
        assert samples == [(i, 7 * call.step + i // 2) for i in range(10)]


@settings(max_examples=60, deadline=None)
@given(runs())
def test_inputs_are_there_before_a_call(run):
    """Senders hold what they send, nobody is sent what it holds, and each rank of a call has its inputs."""
    graph, plan, workers = run
    holders_after(workers.emitted, graph, plan)


@settings(max_examples=60, deadline=None)
@given(runs())
def test_a_call_waits_for_its_producers(run):
    """An instruction is emitted after what it depends on has ended, not merely after it was emitted."""
    graph, _, workers = run
    seq_of = {(i.step, i.call): i.seq for i in workers.emitted if isinstance(i, RunCall)}
    for (step, call), seq in seq_of.items():
        for producer in graph.producers(call):
            assert seq_of[step, producer] in workers.ended_before[seq]
    for forget in (i for i in workers.emitted if isinstance(i, Forget)):
        assert all(seq_of[forget.step, call] in workers.ended_before[forget.seq] for call in graph.calls)


@settings(max_examples=100, deadline=None)
@given(runs())
def test_calls_see_the_weights_of_their_place_in_the_program(run):
    """Replaying the instructions in the order in which they ended, every replica has the version asked for.

    The oracle is the run's own order: versions as if the calls ran one by one. Newer ones may come while a
    call that can be interrupted runs. What is used is never offloaded, and only replicas that are to be kept
    are left.
    """
    graph, plan, workers = run
    due = _versions_one_by_one(workers.stages)
    _check_starts(graph, plan, workers)
    homes = {(model, home, OWN_ENGINE) for model, home in home_placements(graph, plan).items()}
    version = dict.fromkeys(homes, 0)
    offloaded = {home for home in homes if workers.models[home[0]].offload}
    by_seq = {i.seq: i for i in workers.emitted}
    for instruction in map(by_seq.get, workers.finished):
        match instruction:
            case Offload(model=model, placement=placement, back=back):
                (offloaded.remove if back else offloaded.add)((model, placement, OWN_ENGINE))
            case Reallocate(model=model, source=source, target=target, engine=engine):
                origin, replica = (model, source, OWN_ENGINE), (model, target, engine)
                assert version[origin] == instruction.version and origin not in offloaded
                assert version.get(replica) != instruction.version, "it was there already"
                version[replica] = instruction.version
            case Release(model=model, placement=placement, engine=engine):
                del version[model, placement, engine]
            case Snapshot(model=""):
                pass  # of memories
            case Save(model=model, placement=placement) | Snapshot(model=model, placement=placement):
                assert version[model, placement, OWN_ENGINE] == instruction.step
                assert (model, placement, OWN_ENGINE) not in offloaded
            case RunCall():
                call = graph.calls[instruction.call]
                if call.model is None:
                    continue
                replica = call.model, plan[call.name], call.engine
                assert instruction.version == due[instruction.job, call.name]
                if workers.asynchrony.interruptible and call.kind is CallKind.GENERATE:
                    assert instruction.version <= version[replica]
                else:
                    assert version[replica] == instruction.version
                assert replica not in offloaded
                if call.kind is CallKind.TRAIN:
                    version[replica] = instruction.step + 1
    left = {model for model, *_ in version.keys() - homes}
    if not workers.asynchrony.interruptible:
        assert all(workers.models[model].keep_replicas for model in left), "a replica was not released"
    assert offloaded == {home for home in homes if workers.models[home[0]].offload}, (
        "weights were not put away again"
    )


@settings(max_examples=60, deadline=None)
@given(runs())
def test_a_snapshot_has_the_memory_of_every_call_once_the_step_before_has_run(run):
    """All calls of the graph are in some snapshot of a recovery point, after the step before."""
    graph, _, workers = run
    ran = {(i.step, i.call): i.seq for i in workers.emitted if isinstance(i, RunCall)}
    remembered = defaultdict(set)
    for snapshot in (i for i in workers.emitted if isinstance(i, Snapshot)):
        remembered[snapshot.step].update(snapshot.calls)
        for call in snapshot.calls:
            assert ran[snapshot.step - 1, call] in workers.ended_before[snapshot.seq]
    assert all(calls == graph.calls.keys() for calls in remembered.values())


def _check_starts(graph, plan, workers):
    """A replica has the version that is due when a call that can be interrupted begins: workers keep the
    order.
    """
    version = {}
    for instruction in workers.emitted:
        if isinstance(instruction, Reallocate):
            version[instruction.model, instruction.target, instruction.engine] = instruction.version
        if isinstance(instruction, RunCall) and workers.asynchrony.interruptible:
            call = graph.calls[instruction.call]
            replica = call.model, plan[call.name], call.engine
            if call.kind is CallKind.GENERATE and replica in version:
                assert version[replica] == instruction.version


def _versions_one_by_one(stages):
    """The version of its model that each call of each job has, where nothing overlaps."""
    current, found = defaultdict(int), {}
    for stage in stages:
        for run in stage.instructions:
            if isinstance(run, RunCall):
                found[stage.job.number, run.call] = current[run.model]
                if run.function.kind is CallKind.TRAIN:
                    current[run.model] = stage.job.step + 1
    return found


@settings(max_examples=30, deadline=None)
@given(runs(), st.integers(0, 999))
def test_shares_do_not_depend_on_timing(run, seed):
    """The same plan gives the same shares, whichever worker was quicker: runs are repeatable."""
    graph, plan, workers = run
    again = PretendWorkers(graph, plan, seed)
    again.run(make_jobs(graph, plan, NUM_STEPS, asynchrony=workers.asynchrony), max_staleness=1)
    assert _shares(again) == _shares(workers)


def _shares(workers):
    return {(i.step, i.call): i.shares for i in workers.emitted if isinstance(i, RunCall)}


def _disjoint_ppo():
    graph = ppo_graph()
    actor, critic = place(0, ParallelLayout(dp=2)), place(2, ParallelLayout(tp=2))
    return graph, ExecutionPlan(
        {name: critic if call.model == "critic" else actor for name, call in graph.calls.items()}
    )


def test_the_next_step_starts_while_unrelated_calls_still_run():
    """With the critic on its own mesh, the actor generates step 1 before critic_train of step 0 has ended."""
    graph, plan = _disjoint_ppo()
    overlaps = 0
    for seed in range(20):
        workers = PretendWorkers(graph, plan, seed)
        workers.run(make_jobs(graph, plan, 2), window=3)
        seq_of = {(i.step, i.call): i.seq for i in workers.emitted if isinstance(i, RunCall)}
        ended = workers.ended_before[seq_of[1, "actor_gen"]]
        assert seq_of[0, "actor_train"] in ended
        overlaps += seq_of[0, "critic_train"] not in ended
    assert overlaps


def _stale_ppo():
    """Generation and rewards on ranks of their own."""
    graph = ppo_graph()
    gen, home = place(2, ParallelLayout(pp=2)), place(0, ParallelLayout(dp=2))
    return graph, ExecutionPlan(
        {name: gen if name in ("actor_gen", "reward") else home for name in graph.calls}
    )


@pytest.mark.parametrize("max_staleness", [1, 2, 3])
def test_a_step_is_generated_with_weights_as_stale_as_asked(max_staleness):
    """No more and no less, and the first ones with those of the start."""
    graph, plan = _stale_ppo()
    workers = PretendWorkers(graph, plan, 0)
    workers.run(make_jobs(graph, plan, 6, asynchrony=Asynchrony(True)), max_staleness=max_staleness)
    versions = {
        i.step: i.version for i in workers.emitted if isinstance(i, RunCall) and i.call == "actor_gen"
    }
    assert versions == {step: max(0, step - max_staleness) for step in range(6)}


def _held_up(seed, max_staleness, asynchrony, more=0):
    """Workers of such a run, where each generation goes on until the step that it may overlap is trained, or
    `more` later ones are.
    """
    graph, plan = _stale_ppo()

    def may_end(instruction):
        calls = {i.seq: i for i in workers.emitted if isinstance(i, RunCall)}
        trained = [seq for seq in workers.finished if seq in calls and calls[seq].call == "actor_train"]
        generates = isinstance(instruction, RunCall) and instruction.call == "actor_gen"
        return not generates or len(trained) > instruction.step - max_staleness + more

    workers = PretendWorkers(graph, plan, seed, may_end)
    workers.asynchrony = asynchrony
    workers.run(make_jobs(graph, plan, 7, asynchrony=asynchrony), 8, max_staleness)
    return workers


@pytest.mark.parametrize("max_staleness", [1, 2])
@pytest.mark.parametrize("seed", range(10))
def test_training_does_not_wait_for_the_generation_of_later_steps(max_staleness, seed):
    """Even on ranks that generate and hold what is trained on, and are to grade it."""
    _held_up(seed, max_staleness, Asynchrony(True))


def test_the_checks_find_a_scheduler_that_lets_training_wait(monkeypatch):
    """A planted fault: nobody is told to step aside."""
    monkeypatch.setattr(Scheduler, "_preemptions", lambda self, emitted: [])
    with pytest.raises(AssertionError, match="every worker waits for another"):
        _held_up(0, 1, Asynchrony(True))


@pytest.mark.parametrize("seed", range(10))
def test_new_weights_do_not_reach_a_generation_that_has_not_begun(seed):
    """It begins with those of its place in the order."""
    _check_starts(*_stale_ppo(), _held_up(seed, 2, Asynchrony(True, True), more=1))


@pytest.mark.parametrize("seed", range(10))
def test_weights_that_came_into_a_generation_stay_until_it_ends(seed):
    """Though a call on its ranks, for which they came too, was the last of its pass to use them."""
    graph = DataflowGraph(
        ModelFunctionCall("gen", "actor", CallKind.GENERATE, ("prompts",), ("ids",)),
        ModelFunctionCall("prox_inf", "actor", CallKind.INFERENCE, ("ids",), ("prox",)),
        ModelFunctionCall("train", "actor", CallKind.TRAIN, ("ids", "prox")),
    )
    gen, home = place(1, ParallelLayout()), place(0, ParallelLayout())
    plan = ExecutionPlan({"gen": gen, "prox_inf": gen, "train": home})
    workers = PretendWorkers(graph, plan, seed)
    workers.models, workers.asynchrony = {"actor": ModelConfig()}, Asynchrony(True, True)
    jobs = make_jobs(graph, plan, 6, models=workers.models, asynchrony=workers.asynchrony)
    workers.stages = list(in_order(jobs, 2))
    workers.run(jobs, 8, 2)
    test_calls_see_the_weights_of_their_place_in_the_program.hypothesis.inner_test((graph, plan, workers))


def test_what_a_finished_generation_leads_to_comes_before_the_next_one():
    """Else that would have to step aside at once."""
    graph, plan = _stale_ppo()
    workers = PretendWorkers(graph, plan, 0)
    workers.run(make_jobs(graph, plan, 4, asynchrony=Asynchrony(True)), 3, 1)
    seq_of = {(type(i), i.step, i.call): i.seq for i in workers.emitted}
    for step in range(3):
        assert seq_of[Move, step, "critic_inf"] < seq_of[RunCall, step + 1, "actor_gen"]


@pytest.mark.parametrize("interruptible", [False, True])
def test_new_weights_reach_a_generation_that_is_under_way(interruptible):
    """Where it can be interrupted; else they wait for its end."""
    interrupted = 0
    for seed in range(10):
        workers = _held_up(seed, 1, Asynchrony(True, interruptible))
        places = {seq: i for i, seq in enumerate(workers.finished)}
        gens = [i for i in workers.emitted if isinstance(i, RunCall) and i.call == "actor_gen"]
        brought = [i for i in workers.emitted if isinstance(i, Reallocate)]
        interrupted += any(g.seq < b.seq and places[b.seq] < places[g.seq] for g in gens for b in brought)
    assert bool(interrupted) == interruptible


def test_what_waits_says_for_which_edges():
    """While the actor generates, its consumers wait for what it makes, by key; what comes after these waits
    for the same instruction, though another node stands between.
    """
    graph = ppo_graph()
    train, elsewhere = place(0, ParallelLayout(dp=2)), place(2, ParallelLayout())
    plan = ExecutionPlan(
        {name: train for name in graph.calls} | {"actor_gen": elsewhere, "reward": elsewhere}
    )
    scheduler, emitted = Scheduler(), []
    for stage in in_order(make_jobs(graph, plan, 1)[:1], 0):
        emitted += scheduler.handle(stage)
    (bring,) = emitted
    for rank in bring.ranks:
        emitted += scheduler.handle(Reported(rank, Done(seq=bring.seq, started_s=0.0, ended_s=1.0)))
    (generate,) = (i for i in emitted if isinstance(i, RunCall))
    edges = [edge for waits in scheduler.waiting() for edge in waits.edges.values()]
    assert edges == [
        "actor_gen -> release actor_gen (weights of actor at p1d1t1@[2])",
        "actor_gen -> move reward (input_ids)",
        "actor_gen -> move critic_inf (input_ids)",
        "actor_gen -> move actor_train (input_ids, logprobs)",
        "actor_gen -> move critic_train (input_ids, logprobs)",
        "actor_gen -> forget (input_ids, logprobs)",
    ]
    assert {waits.seqs for waits in scheduler.waiting()} == {frozenset({generate.seq})}


def test_mini_batches_are_balanced_each():
    """critic_train's two mini-batches each spread over both data-parallel ranks."""
    graph = ppo_graph()
    plan = ExecutionPlan({name: place(0, ParallelLayout(dp=2)) for name in graph.calls})
    workers = PretendWorkers(graph, plan, 0)
    workers.run(make_jobs(graph, plan, 1))
    (call,) = [i for i in workers.emitted if isinstance(i, RunCall) and i.call == "critic_train"]
    for share in call.shares:
        assert {sample < 5 for sample, _ in share} == {True, False}


def test_the_checks_find_a_scheduler_that_does_not_wait(monkeypatch):
    """A planted fault: without hazards on weights, some call sees the wrong version."""
    graph = ppo_graph()
    gen = place(2, ParallelLayout(dp=2))
    home = place(0, ParallelLayout(tp=2))
    plan = ExecutionPlan({name: gen if name == "actor_gen" else home for name in graph.calls})
    monkeypatch.setattr(Hazards, "add", lambda self, task: set())
    found = 0
    for seed in range(5):
        workers = PretendWorkers(graph, plan, seed)
        try:
            workers.run(make_jobs(graph, plan, 2))
            test_a_call_waits_for_its_producers.hypothesis.inner_test((graph, plan, workers))
        except (AssertionError, KeyError):
            found += 1
    assert found == 5


def test_generation_keeps_groups_whole():
    """The samples of one prompt share its prefill, so they go to one rank."""
    graph, plan = _disjoint_ppo()
    workers = PretendWorkers(graph, plan, random.Random(0).randint(0, 9))
    workers.run(make_jobs(graph, plan, 1))
    (call,) = [i for i in workers.emitted if isinstance(i, RunCall) and i.call == "actor_gen"]
    for share in call.shares:
        ids = [Sample(*pair).id for pair in share]
        assert all(sample ^ 1 in ids for sample in ids)


def _small_run(models: dict[str, ModelConfig], blends: tuple[Blend, ...] = ()) -> list:
    """Two steps of a trained actor and a reference, both used away from their homes too."""
    graph = DataflowGraph(
        ModelFunctionCall("gen", "actor", CallKind.GENERATE, ("x",), ("a",)),
        ModelFunctionCall("ref", "ref", CallKind.INFERENCE, ("a",), ("b",)),
        ModelFunctionCall("ref_again", "ref", CallKind.INFERENCE, ("b",), ("c",)),
        ModelFunctionCall("train", "actor", CallKind.TRAIN, ("c",)),
        blends=blends,
    )
    home, away = place(0, ParallelLayout(tp=2)), place(0, ParallelLayout(dp=2))
    plan = ExecutionPlan({"gen": away, "ref": home, "ref_again": away, "train": home})
    workers = PretendWorkers(graph, plan, 0)
    workers.run(make_jobs(graph, plan, 2, models=models))
    return [i for i in workers.emitted if isinstance(i, (Reallocate, Release, RunCall))]


def test_a_kept_replica_is_brought_again_only_when_its_model_changed():
    """The actor in each step, the reference once; neither is released."""
    kept = ModelConfig(keep_replicas=True)
    emitted = _small_run({"actor": kept, "ref": kept})
    assert not [i for i in emitted if isinstance(i, Release)]
    brought = [(i.step, i.model, i.version) for i in emitted if isinstance(i, Reallocate)]
    assert brought == [(0, "actor", 0), (0, "ref", 0), (1, "actor", 1)]


def test_a_blend_follows_the_training_and_makes_a_new_version():
    """The reference becomes version 1 after the first step, and its kept replica is out of date."""
    emitted = _small_run({"ref": ModelConfig(keep_replicas=True)}, (Blend("actor", "ref", 0.1),))
    blends = [i for i in emitted if isinstance(i, Reallocate) and i.into != i.model]
    assert [(i.model, i.into, i.eta, i.version) for i in blends] == [
        ("actor", "ref", 0.1, 1),
        ("actor", "ref", 0.1, 2),
    ]
    order = [i.call or "blend" for i in emitted if isinstance(i, RunCall) or i in blends]
    assert order == ["gen", "ref", "ref_again", "train", "blend"] * 2
    assert [i.version for i in emitted if isinstance(i, RunCall) and i.call.startswith("ref")] == [0, 0, 1, 1]
    brought = [i.version for i in emitted if isinstance(i, Reallocate) and i.model == "ref"]
    assert brought == [0, 1]


@pytest.mark.parametrize("blend", [Blend("ref", "actor", 0.1), Blend("actor", "critic", 0.1)])
def test_only_a_trained_model_is_blended_into_one_that_is_used(blend):
    """Otherwise nobody could say which version the result has."""
    with pytest.raises(ValueError, match="expected a model that the graph trains"):
        _small_run({}, (blend,))


@st.composite
def redrawing_runs(draw):
    """PPO whose judge rejects rows at random; generation may be ahead of training."""
    redraw = Redraw("reward", draw(st.integers(2, 4)))
    graph, max_staleness = ppo_graph(redraw), draw(st.integers(0, 2))
    plan = draw(plans(graph))
    rejects = draw(st.sets(st.integers(0, 20)))
    is_rejected = (rejects | {1000 * step + row for step in range(1, 4) for row in rejects}).__contains__
    workers = PretendWorkers(graph, plan, draw(st.integers(0, 999)), rejects=is_rejected)
    asynchrony = Asynchrony(max_staleness > 0)
    num_spare = draw(st.integers(0, 12))
    jobs = make_jobs(graph, plan, NUM_STEPS, asynchrony=asynchrony, num_spare=num_spare)
    workers.run(jobs, draw(st.integers(1, 3)), max_staleness)
    return redraw, plan, workers, jobs, is_rejected


@settings(max_examples=60, deadline=None)
@given(redrawing_runs())
def test_rejected_rows_give_way_to_others(run):
    """The rows of each draw, and those that are trained on, are what a loop over the spare ones gives."""
    redraw, _, workers, jobs, is_rejected = run
    for job in (job for job in jobs if job.samples):
        rows, spare = [sample.row for sample in job.samples[::2]], list(job.spare_rows)
        draws = [dict(enumerate(rows))]
        for _ in range(redraw.max_draws - 1):
            again = [place for place, row in draws[-1].items() if is_rejected(row)]
            draws.append({place: spare.pop(0) for place in again if spare})
            rows = [draws[-1].get(place, row) for place, row in enumerate(rows)]
        calls = [i for i in workers.emitted if isinstance(i, RunCall) and i.job == job.number]
        for name in ("actor_gen", "reward"):
            assert [_rows_of(c) for c in calls if c.call == name] == [draw for draw in draws if draw]
        for name in ("critic_inf", "actor_train", "critic_train"):
            assert [_rows_of(c) for c in calls if c.call == name] == [dict(enumerate(rows))]


@settings(max_examples=60, deadline=None)
@given(redrawing_runs())
def test_what_is_drawn_again_comes_after_its_judgement(run):
    """Generation and judgement are made again only when the judge has ended everywhere."""
    _, _, workers, jobs, _ = run
    for job in (job for job in jobs if job.samples):
        calls = [i for i in workers.emitted if isinstance(i, RunCall) and i.job == job.number]
        judged: list[int] = []
        for call in calls:
            if call.call in ("actor_gen", "reward"):
                assert set(judged) <= workers.ended_before[call.seq]
            judged += [call.seq] if call.call == "reward" else []


def _rows_of(call: RunCall) -> dict[int, int]:
    """By place in the batch; both samples of a place have one row."""
    rows = {id: row for share in call.shares for id, row in share}
    assert all(rows[id] == rows[id ^ 1] for id in rows)
    return {id // 2: row for id, row in sorted(rows.items()) if id % 2 == 0}


def _evaluated_apart(seed, *, apart=True, max_staleness=0, keeps=True):
    """Three steps of PPO that generate on ranks of their own, with two evaluations before each.

    An evaluation generates until the step after it is trained, if it can; with staleness, that before the
    first step does not, because responses to the first are generated after it. Without `apart`, evaluations
    are not compiled as for ranks that only generate; without `keeps`, replicas are dropped after each.
    """
    graph = ppo_graph()
    gen, home = place(2, ParallelLayout(pp=2)), place(0, ParallelLayout(dp=2))
    plan = ExecutionPlan({name: gen if name == "actor_gen" else home for name in graph.calls})
    is_ahead = max_staleness > 0
    asynchrony = Asynchrony(preemptible=is_ahead, overtakes=apart and not is_ahead)
    eval_graph = DataflowGraph(*[graph.calls[name] for name in ("actor_gen", "reward")])
    models = {"actor": ModelConfig(keep_replicas=keeps)}
    homes = home_placements(graph, plan)
    evaluate = compile_program(eval_graph, plan, homes, models, Asynchrony(preemptible=apart))
    evaluate = replace(evaluate, is_overtaken=asynchrony.overtakes)
    jobs = []
    for step, job in enumerate(make_jobs(graph, plan, 3, asynchrony=asynchrony)[::2]):
        samples = {"samples": job.samples[:4], "row_lengths": job.row_lengths}
        for number, name in ((10 + 3 * step, "a"), (11 + 3 * step, "b")):
            jobs.append(Job(number, evaluate, step, eval_set=name, **samples))
        jobs.append(replace(job, number=12 + 3 * step))

    def may_end(instruction):
        if not (isinstance(instruction, RunCall) and instruction.evaluating and instruction.model):
            return True
        calls = {i.seq: i for i in workers.emitted if isinstance(i, RunCall)}
        trained = [calls[seq].step for seq in workers.finished if seq in calls and calls[seq].trains]
        is_before_all = is_ahead and instruction.step == 0
        return is_before_all or trained.count(instruction.step) == 2

    workers = PretendWorkers(graph, plan, seed, may_end)
    workers.asynchrony = asynchrony
    workers.run(jobs, 8, max_staleness)
    return workers


@pytest.mark.parametrize("max_staleness", [0, 1])
@pytest.mark.parametrize("seed", range(10))
def test_evaluations_on_ranks_that_only_generate_do_not_hold_up_training(seed, max_staleness):
    """They may take until the step is trained, and still have the weights that the step began with."""
    workers = _evaluated_apart(seed, max_staleness=max_staleness)
    evaluations = [i for i in workers.emitted if isinstance(i, RunCall) and i.evaluating and i.model]
    assert [(i.eval_set, i.step, i.version) for i in evaluations] == [
        (name, step, step) for step in range(3) for name in "ab"
    ]
    brought = [i.version for i in workers.emitted if isinstance(i, Reallocate) and i.evaluating]
    assert brought == [0, 1, 2], "the second evaluation has the replica of the first"


@pytest.mark.parametrize("fault", [{"apart": False}, {"keeps": False}, {"keeps": False, "max_staleness": 1}])
def test_the_checks_find_evaluations_that_hold_up_training(fault):
    """Planted faults: they are not overtaken, or each brings weights that the one before it had, too."""
    with pytest.raises(AssertionError, match="every worker waits"):
        _evaluated_apart(0, **fault)
