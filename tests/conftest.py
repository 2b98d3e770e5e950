"""What every test's report needs, what makes tests come out alike on all machines, and who runs which test."""

import gc
import os
from functools import cache

import pytest
import torch
from not_tested import GPU

HIDDEN = os.environ.get(GPU, "cpu") == "cpu"

os.environ["UNCLIP_MEASURE_CPU"] = "0"  # for the programs that tests start, too: the constants decide
if HIDDEN:
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}  # for the processes that tests start


@pytest.fixture(scope="session", autouse=True)
def _no_accelerator():
    """Tests compare with numbers of the CPU's, in float32; a card would be taken by itself, in float16."""
    with pytest.MonkeyPatch.context() as patch:
        if HIDDEN:
            for module in (torch.cuda, torch.xpu, torch.mps, torch.backends.mps):
                patch.setattr(module, "is_available", cache(lambda: False))  # compilers ask for what the cache wraps
        yield


@pytest.fixture
def emulated(monkeypatch):
    """A processor without instructions for numbers of 16 bits."""
    from unclip.unclip_core.weights import computing

    halves = (torch.bfloat16, torch.float16)
    monkeypatch.setattr(computing, "cpu_computes_in", lambda dtype: dtype not in halves)


@pytest.fixture
def native(monkeypatch):
    """A processor that has them, or would have: torch emulates what it has not."""
    from unclip.unclip_core.weights import computing

    monkeypatch.setattr(computing, "cpu_computes_in", lambda dtype: True)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Escape what no stream can encode, such as half a character in a log: reports travel between processes."""
    report = (yield).get_result()
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]


def pytest_terminal_summary(terminalreporter):
    """Say aloud what was not tested."""
    reports = terminalreporter.stats.get("skipped", [])
    for reason in sorted({report.longrepr[2] for report in reports if "NOT TESTED" in str(report.longrepr)}):
        _, what, why = reason.removeprefix("Skipped: ").split(": ", 2)
        terminalreporter.section(f"NOT TESTED: {what}", red=True, bold=True)
        terminalreporter.line(f"{what} was not tested: {why}.", red=True)


@pytest.hookimpl(hookwrapper=True)
def pytest_collection(session):
    """Look for garbage among what tests make, not again and again among what was imported for them."""
    gc.disable()
    yield
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items):
    """Long files first, so that all processes end at about the same time: `--no-loadscope-reorder` keeps the order."""
    long = {file(item.nodeid) for item in items if any(map(item.get_closest_marker, ("slow", "comfyui")))}
    items.sort(key=lambda item: file(item.nodeid) not in long)


def file(nodeid):
    return nodeid.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keep the tests of a file in one process, and in another those of the canvas that Vue draws."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            parameters = nodeid.partition("[")[2].rstrip("]").split("-")
            return f"{file(nodeid)} in Vue" if "vue" in parameters else file(nodeid)

    return Scheduling(config, log)
