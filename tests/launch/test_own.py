"""A launcher of a user's own is checked before anything starts."""

from __future__ import annotations

import pytest

from realrl.api.config import RunConfig
from realrl.launch.modes import check_mode, open_launcher

WHOLE = """
class Whole:
    host, shares_proc = "127.0.0.1", True
    def __init__(self, config, num_workers):
        self.made_with = config.experiment, num_workers
    def start(self, num_workers, environment, log_directory): ...
    def poll(self): ...
    def explain(self): ...
    def log_path(self, rank): ...
    def dump_stacks(self): ...
    def states(self, ranks): ...
    def wait(self, timeout_s): ...
    def stop(self, grace_s): ...
    def close(self): ...

def make(config, num_workers):
    return Whole(config, num_workers)

def make_a_number(config, num_workers):
    return num_workers

def broken(config, num_workers):
    raise KeyError("GATEWAY")

def of_nothing():
    ...

class Half:
    def __init__(self, config, num_workers): ...
    def start(self, num_workers, environment, log_directory): ...

LISTED = [1]
"""


@pytest.fixture
def config(tmp_path):
    """Returns the config with a launcher of the file above."""
    file = tmp_path / "launchers.py"
    file.write_text(WHOLE)
    return lambda name: RunConfig(experiment="e", launcher=f"{file}:{name}")


@pytest.mark.parametrize("name", ["Whole", "make"])
def test_a_class_or_a_function_makes_the_launcher(config, name):
    check_mode(config(name))
    assert open_launcher(config(name), 3).made_with == ("e", 3)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("Other", "launcher: .*launchers.py has no launcher 'Other'; it has Whole, make, make_a_number, .*"),
        ("LISTED", "launcher: .*launchers.py has no launcher 'LISTED'"),
        ("of_nothing", r"of_nothing takes \(\), expected a class or a function that can be called with"),
        ("Half", "Half has no poll, explain, log_path, .*, close; realrl.api.launcher.Launcher says"),
    ],
)
def test_what_is_none_is_refused_before_a_start(config, name, says):
    with pytest.raises(ValueError, match=says):
        check_mode(config(name))


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("broken", "launcher: .*:broken raised KeyError: 'GATEWAY'"),
        ("make_a_number", "launcher: .*:make_a_number has no host, shares_proc, start, .*"),
    ],
)
def test_what_cannot_be_made_is_refused_with_its_reason(config, name, says):
    check_mode(config(name))
    with pytest.raises(ValueError, match=says):
        open_launcher(config(name), 1)


@pytest.mark.parametrize(
    "reference", ["", "launchers", "launchers.py", "launchers.py:", "launchers.txt:Whole"]
)
def test_a_reference_names_a_file_and_an_object(reference):
    with pytest.raises(ValueError, match="launcher: expected a path/to/file.py:launcher, got"):
        check_mode(RunConfig(experiment="e", launcher=reference))


def test_it_replaces_the_mode():
    with pytest.raises(ValueError, match="launcher: a launcher of your own replaces mode=ray"):
        RunConfig(experiment="e", launcher="a.py:A", mode="ray")
