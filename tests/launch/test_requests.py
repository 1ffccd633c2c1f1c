"""What a cluster is asked for: SLURM's script, Ray's bundles. Nothing is started."""

import itertools
import re
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realrl.api.configure import build_config
from realrl.launch.bundles import bundles, misfit
from realrl.launch.sbatch import sbatch_script
from realrl.launch.workers import ranks_by_node
from realrl.recipes import RECIPES

NASTY = 'it\'s $HOME, `date` and "100%"'
PYTHON = """\
#!/bin/bash
printf '%s\\n' "$*" "$NAME" "$STEP" "$PWD" >"{folder}/seen"
cat "${{@: -1}}" >"{folder}/config.yaml"
exit 3
"""


def _config(*overrides):
    return build_config(RECIPES["ppo-math"].default_config, None, ["mode=slurm", *overrides])


def _options(script):
    return dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", script, flags=re.M))


@pytest.mark.parametrize("requeues", [0, 2])
def test_the_script_runs_the_command_with_the_very_config(tmp_path, monkeypatch, requeues):
    """Run by bash with a stand-in for Python: config, environment, extra lines, folder, exit code."""
    python = tmp_path / "python with spaces"
    python.write_text(PYTHON.format(folder=tmp_path))
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.chdir(tmp_path)
    config = _config(f"slurm={{requeues: {requeues}, extra_lines: [STEP=one; export STEP]}}")
    config = replace(config, slurm=replace(config.slurm, environment={"NAME": NASTY}))
    script = sbatch_script("ppo-math", config, 2)
    done = subprocess.run(["bash"], input=script, text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (3, "")
    seen = (tmp_path / "seen").read_text().splitlines()
    assert seen[0].startswith("-m realrl.apps.quickstart ppo-math --config ")
    assert seen[1:] == [NASTY, "one", str(tmp_path)]
    found = build_config(RECIPES["ppo-math"].default_config, tmp_path / "config.yaml", recipe="ppo-math")
    assert found == config


def test_a_failed_run_is_requeued_so_often_and_no_more(tmp_path, monkeypatch):
    """Only one that failed, as opposed to bad input or Ctrl-C; `scontrol` is a stand-in here."""
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(f'#!/bin/bash\necho "$*" >>{tmp_path}/asked\n')
    scontrol.chmod(0o755)
    asked = []
    for code, restarts in itertools.product((0, 1, 2), ("0", "1", "2")):
        python = tmp_path / "python"
        python.write_text(f"#!/bin/bash\nexit {code}\n")
        python.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(python))
        script = sbatch_script("ppo-math", _config("slurm.requeues=2"), 2)
        environment = {
            "PATH": f"{tmp_path}:/usr/bin:/bin",
            "SLURM_JOB_ID": "7",
            "SLURM_RESTART_COUNT": restarts,
        }
        assert subprocess.run(["bash"], input=script, text=True, env=environment).returncode == code
        if (tmp_path / "asked").exists():
            asked.append((code, restarts, (tmp_path / "asked").read_text()))
            (tmp_path / "asked").unlink()
    assert asked == [(1, "0", "requeue 7\n"), (1, "1", "requeue 7\n")]


def test_a_signal_before_the_end_reaches_the_master_and_its_code_comes_back(tmp_path, monkeypatch):
    """SLURM sends it to the script alone; the job is not requeued for it."""
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/bash\ntrap 'echo told; exit 143' TERM\necho up\nfor i in {1..600}; do sleep 0.05; done\n"
    )
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    for requeues in (0, 2):
        config = _config(f"slurm.requeues={requeues}", "recover_every=5", "sigterm_grace_s=12.5")
        script = tmp_path / "script"
        script.write_text(sbatch_script("ppo-math", config, 2))
        assert _options(script.read_text())["signal"] == "B:TERM@43"
        job = subprocess.Popen(["bash", str(script)], stdout=subprocess.PIPE, text=True)
        assert job.stdout.readline() == "up\n"
        job.send_signal(signal.SIGTERM)
        out, _ = job.communicate(timeout=30)
        assert (job.returncode, out) == (143, "told\n")
    assert "signal" not in _options(sbatch_script("ppo-math", _config(), 2))


def test_the_job_asks_for_what_the_plan_needs():
    """Nodes are filled one after another; every key of YAML is an option."""
    config = _config(
        "device=cuda",
        "devices_per_node=4",
        "cpus_per_worker=3",
        "slurm={partition: gpu, nodelist: 'g[1-9]', account: lab, time: 2-00:00:00, requeues: 1}",
        "slurm.extra_lines=['#SBATCH --qos=high']",
        "experiment=e%j",
    )
    options = _options(sbatch_script("ppo-math", config, 10))
    assert options.pop("output").endswith("/runs/e%%j/trial-%j.out")
    assert options == {
        "job-name": "e%j-trial",
        "nodes": "3",
        "ntasks-per-node": "4",
        "cpus-per-task": "3",
        "gpus-per-node": "4",
        "partition": "gpu",
        "nodelist": "'g[1-9]'",
        "account": "lab",
        "time": "2-00:00:00",
        "open-mode": "append",
        "no-kill": "",
        "requeue": "",
        "qos": "high",
    }
    assert "gpus-per-node" not in _options(sbatch_script("ppo-math", _config(), 2))


def test_the_script_holds_nothing_of_the_environment(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "a-secret-of-the-shell")
    assert "a-secret-of-the-shell" not in sbatch_script("ppo-math", _config(), 2)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("slurm.partition=a b", "slurm.partition: expected one word"),
        ("slurm.time=tomorrow", "slurm.time: expected a limit as 2-00:00:00"),
        ('slurm.extra_lines=["a\\nb"]', "slurm.extra_lines: expected one line each"),
        ("slurm.environment.A-B=1", "slurm.environment: expected the names of variables, got 'A-B'"),
        ("slurm.requeues=-1", "slurm.requeues must not be negative"),
        ("ray.environment.1A=1", "ray.environment: expected the names of variables"),
        ("ray.timeout_s=-1", "ray.timeout_s must not be negative"),
        ("devices_per_node=0", "devices_per_node must be at least 1"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_path(override, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        _config(override)


@given(st.integers(1, 60), st.integers(1, 9))
def test_nodes_are_filled_one_after_another(num_workers, devices_per_node):
    """Every rank once, in order, so many a node, and only the last node may have fewer."""
    nodes = ranks_by_node(num_workers, devices_per_node)
    assert [rank for ranks in nodes for rank in ranks] == list(range(num_workers))
    assert all(len(ranks) == devices_per_node for ranks in nodes[:-1])
    assert 1 <= len(nodes[-1]) <= devices_per_node


_node = st.fixed_dictionaries({"CPU": st.integers(0, 6), "GPU": st.integers(0, 3)})


@given(st.integers(1, 6), st.integers(1, 3), st.lists(_node, max_size=4))
def test_bundles_fit_if_each_can_have_a_node_of_its_own(num_workers, devices_per_node, nodes):
    """Compared with every way to give the bundles nodes."""
    config = _config("device=cuda", f"devices_per_node={devices_per_node}", "cpus_per_worker=2")
    wanted = bundles(config, num_workers)
    assert sum(bundle["GPU"] for bundle in wanted) == num_workers

    def fits(chosen):
        return all(node[kind] >= bundle[kind] for bundle, node in zip(wanted, chosen) for kind in bundle)

    possible = any(map(fits, itertools.permutations(nodes, len(wanted))))
    assert (misfit(wanted, nodes) == "") == possible


def test_a_misfit_names_the_bundle_and_what_is_there():
    wanted = bundles(_config("device=cuda", "devices_per_node=2", "cpus_per_worker=4"), 6)
    nodes = [{"CPU": 8.0, "GPU": 2.0, "memory": 1e9}, {"CPU": 64.0}, {"CPU": 64.0}]
    assert misfit(wanted, nodes) == (
        "bundle 2 of 3 (8 CPU, 2 GPU) fits on no node that is left; "
        "the cluster has 1 node of 8 CPU, 2 GPU, and 2 nodes of 64 CPU, 0 GPU"
    )
