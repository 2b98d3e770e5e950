"""Measured choices: that they follow the times, are kept, are the same in every process, and can be left out."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from os import environ, pathsep

import pytest
import torch
from factories import draw, error, randomise

from unclip.unclip_core.nets import convolutions, cpu_timing, linear
from unclip.unclip_core.nets.cpu_timing import Probe, is_faster, winning_sizes


class Clock:
    """Stands still but for the work that is done by it."""

    def __init__(self):
        self.now, self.ran = 0.0, []

    def __call__(self):
        return self.now

    def work(self, name, *seconds):
        """Work that takes these seconds, run after run, the last of them from then on."""
        left = list(seconds)

        def run():
            self.ran.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run

    def probe(self, size, plain, other):
        return Probe(size, self.work("plain", plain), self.work("other", other))


@pytest.fixture
def measuring(monkeypatch, tmp_path):
    """Measures into a folder of its own, and forgets everything before and after."""
    monkeypatch.setenv(cpu_timing.VARIABLE, "1")
    monkeypatch.setattr(cpu_timing, "cache_folder", lambda: tmp_path / "kept")
    monkeypatch.setattr(cpu_timing, "BUDGET", 60)  # a busy machine must not run out of it
    cpu_timing._winning.cache_clear()
    yield tmp_path / "kept"
    cpu_timing._winning.cache_clear()


@pytest.mark.parametrize(
    ("seconds", "won"),
    [
        # (plain, other) at sizes 1, 2, 4
        ([(10, 20), (10, 12), (10, 8)], [4]),
        ([(10, 20), (10, 8), (10, 8)], [2, 4]),
        ([(10, 20), (10, 9.8), (10, 9)], [4]),  # 2 % is noise
        ([(10, 5), (10, 20), (10, 5)], [4]),  # what wins below what loses is chance
        ([(10, 5), (10, 5), (10, 20)], []),
        ([(10, 20), (10, 20), (10, 20)], []),
    ],
)
def test_the_choice_follows_the_times(seconds, won):
    clock = Clock()
    probes = [clock.probe((size,), *(s / 10_000 for s in pair)) for size, pair in zip((1, 2, 4), seconds, strict=True)]
    assert winning_sizes(probes, clock) == [(size,) for size in won]
    assert clock.ran.count("plain") == clock.ran.count("other") == 3 * (1 + cpu_timing.REPEATS)


def test_the_fastest_run_counts_and_the_first_never():
    clock = Clock()
    plain, other = clock.work("plain", 0.0001, 0.004, 0.002), clock.work("other", 0.05, 0.001, 0.03)
    assert winning_sizes([Probe((1,), plain, other)], clock) == [(1,)]


def test_of_two_respects_both_count():
    clock = Clock()
    probes = [
        clock.probe(size, 0.001, 0.0005 if size != (1, 9) else 0.002) for size in ((1, 1), (9, 1), (1, 9), (9, 9))
    ]
    assert winning_sizes(probes, clock) == [(9, 1), (9, 9)]


@pytest.mark.parametrize(("other", "won"), [(0.0005, [(1,)]), (0.002, None)], ids=["what is done", "the constants"])
def test_a_processor_too_slow_for_all_probes_keeps(other, won):
    clock = Clock()
    assert winning_sizes([clock.probe((1,), 0.001, other), clock.probe((2,), 0.31, 0.1)], clock) == won
    assert clock.now < 2 * cpu_timing.BUDGET


def always(seconds):
    """Probes by the true clock: the other way takes no time, or all of it, of the processor: sleep would not count."""

    def work(seconds):
        end = time.thread_time() + seconds
        while time.thread_time() < end:
            pass

    return lambda: [Probe((4,), lambda: work(0.002 - seconds), lambda: work(seconds))]


def test_a_measurement_is_made_once_kept_and_read(measuring):
    assert is_faster("some", (4,), always(0.0)) and not is_faster("some", (3,), always(0.0))
    (file,) = measuring.iterdir()
    said = json.loads(file.read_text())
    assert said["winning"] == [[4]] and said["machine"]["torch"] == torch.__version__
    cpu_timing._winning.cache_clear()  # as another process, whose own measurement would come out otherwise
    assert is_faster("some", (4,), always(0.002))
    assert not is_faster("other", (4,), always(0.002))
    assert len(list(measuring.iterdir())) == 2


def test_other_threads_are_another_measurement(measuring, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert is_faster("some", (4,), always(0.0))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    assert not is_faster("some", (4,), always(0.002))
    assert len(list(measuring.iterdir())) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"winning": 3}', '{"winning": [["a"]]}', '{"winning": [4]}'])
def test_a_damaged_file_is_measured_anew(measuring, text):
    assert is_faster("some", (4,), always(0.0))
    (file,) = measuring.iterdir()
    file.write_text(text)
    cpu_timing._winning.cache_clear()
    assert is_faster("some", (4,), always(0.0))
    assert json.loads(file.read_text())["winning"] == [[4]] and len(list(measuring.iterdir())) == 1


def test_who_measures_at_the_same_time_takes_what_was_kept_first(measuring):
    """One measurement says yes, the other no: whichever is kept, both go by it."""
    assert is_faster("some", (4,), always(0.0))
    (file,) = measuring.iterdir()
    file.unlink()
    cpu_timing._winning.cache_clear()

    def overtaken():
        file.write_text('{"winning": []}')  # by another process, while this one measures
        return always(0.0)()

    assert not is_faster("some", (4,), overtaken)
    assert [path.name for path in measuring.iterdir()] == [file.name]


def test_threads_of_one_process_measure_once(measuring):
    made = []

    def probes():
        made.append(1)
        return always(0.0)()

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(lambda _: is_faster("some", (4,), probes), range(4)))
    assert len(made) == 1


def test_where_nothing_can_be_kept_nothing_is_measured(measuring, caplog):
    measuring.write_text("a file where a folder is wanted")

    def never():
        raise AssertionError

    assert is_faster("some", (4,), never) is None and is_faster("some", (4,), never) is None
    assert len([record for record in caplog.records if "could not be kept" in record.getMessage()]) == 1


def test_a_user_without_a_home_has_the_constants(measuring, monkeypatch, caplog):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(cpu_timing, "cache_folder", homeless)
    assert is_faster("some", (4,), always(0.0)) is None and "Could not determine" in caplog.text


def test_the_environment_leaves_it_out(monkeypatch, measuring):
    monkeypatch.setenv(cpu_timing.VARIABLE, "0")
    assert is_faster("some", (4,), always(0.0)) is None and not measuring.exists()


@pytest.mark.parametrize("wins", [True, False])
@torch.no_grad()
def test_layers_go_the_way_that_was_measured(measuring, monkeypatch, wins):
    """Against the constants, which say the opposite; and the numbers are those of the plain way."""
    taken = []
    monkeypatch.setattr(cpu_timing, "winning_sizes", lambda probes: [probes[0].size] if wins else [])
    monkeypatch.setattr(convolutions, "IM2COL_OUTPUTS_PER_PIXEL", 10**9 if wins else 9)  # `few`: 32
    for name in ("winograd", "im2col"):
        real = getattr(convolutions, name)
        monkeypatch.setattr(convolutions, name, lambda *given, n=name, f=real: taken.append(n) or f(*given))
    wide, few = draw(1, 64, 48, 48), draw(1, 512, 4, 4)
    for x, outputs in ((wide, 64), (few, 512)):
        conv = randomise(convolutions.Conv3x3(x.shape[1], outputs))
        assert error(conv(x), convolutions.direct(x, conv.weight, conv.bias)) < 1e-5
    assert taken == (["winograd", "im2col"] if wins else [])
    asked = linear._by_onednn(draw(16, 256), draw(256, 256))
    assert asked == (wins and linear.has_both())


@torch.no_grad()
def test_probes_compare_ways_that_are_equal():
    found = 0
    for make in (*convolutions._PROBES.values(), *([linear.product_probes] if linear.has_both() else [])):
        state = torch.get_rng_state()
        probes = make()
        assert torch.equal(state, torch.get_rng_state())  # a user's seed goes on as if nothing had been measured
        for probe in probes[:1] if probes[0].plain.args[0].dtype == torch.float32 else []:
            found += 1
            plain, other = probe.plain(), probe.other()
            assert error(other.float(), plain.float()) < 1e-5
    assert found >= 2


@pytest.mark.slow
@torch.no_grad()
def test_another_process_chooses_alike(measuring, monkeypatch):
    given = dict.fromkeys(("XDG_CACHE_HOME", "LOCALAPPDATA", "HOME"), str(measuring)) | {cpu_timing.VARIABLE: "1"}
    monkeypatch.undo()
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    own = [linear._by_onednn(torch.zeros(r, w), torch.zeros(w, w)) for r, w in ((16, 256), (64, 512), (256, 1024))]
    program = (
        f"import torch; torch.set_grad_enabled(False); torch.set_num_threads({torch.get_num_threads()})\n"
        "from unclip.unclip_core.nets.linear import _by_onednn as choose\n"
        "print([choose(torch.zeros(r, w), torch.zeros(w, w)) for r, w in ((16, 256), (64, 512), (256, 1024))])\n"
    )
    given = environ | {"PYTHONPATH": pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(own)
    assert len(list(measuring.rglob("products-*.json"))) == (1 if linear.has_both() else 0)
