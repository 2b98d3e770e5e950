"""`unclip embed` and `unclip evaluate`: options that would do nothing, with --ray and without, are refused."""

import pytest

from unclip.__main__ import main
from unclip.unclip_core.evaluate import evaluation
from unclip.unclip_core.train import run

COMMANDS = {
    "embed": ["embed", "--data", "images", "--output", "out"],
    "evaluate": ["evaluate", "--model", "bundled (shapes)", "--data", "images"],
}


@pytest.fixture
def calls(monkeypatch):
    found = []
    monkeypatch.setattr(run, "embed", lambda *given: found.append(given))
    monkeypatch.setattr(evaluation, "evaluate_model", lambda *given, **named: found.append(given))
    return found


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--ray-workers", "8"], "Without --ray nothing reads --ray-workers:"),
        (["--address", "auto", "--gpus-per-worker", "1"], "Without --ray nothing reads --gpus-per-worker, --address:"),
        (["--ray", "--device", "cuda"], "--ray does not read --device (workers compute on the CPU"),
    ],
)
def test_what_would_do_nothing_is_refused(calls, capsys, command, options, said):
    assert main([*COMMANDS[command], *options]) == 1
    assert said in capsys.readouterr().err and not calls


def test_processes_that_read_are_not_of_rays_workers(calls, capsys):
    assert main([*COMMANDS["embed"], "--ray", "--workers", "4"]) == 1
    assert "--ray does not read --workers (each of --ray-workers reads" in capsys.readouterr().err and not calls


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("options", [["--device", "cpu"], ["--ray", "--ray-workers", "1:8", "--address", "auto"], []])
def test_the_others_are_read(calls, command, options):
    assert main([*COMMANDS[command], *options]) == 0 and len(calls) == 1
