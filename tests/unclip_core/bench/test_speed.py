"""The measurement beside diffusers: both programs draw the same images, and ratios are what they are called."""

import json

import pytest
import torch
from PIL import Image

from unclip.unclip_core import fresh_process
from unclip.unclip_core.bench.speed import bars, parts, runs, sizes, steps, table, worker
from unclip.unclip_core.families.karlo.random_weights import small_size, write_random_karlo

STEPS = [3, 3, 2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_random_karlo(tmp_path_factory.mktemp("speed") / "karlo", small_size(), vision=False)


def measured(program, folder, tmp_path, dtype="fp32", **more):
    images = tmp_path / f"{program}.pt"
    figures = worker.measure(
        {
            "program": program,
            "folder": str(folder),
            "dtype": dtype,
            "batch": 2,
            "steps": STEPS,
            "images": 2,
            "device": "cpu",
            "save_to": str(images),
            **more,
        }
    )
    assert len(figures["per_image"]) == 1 and min(figures["load"], figures["first"], figures["peak_memory"]) > 0
    assert len(figures["cpu_per_image"]) == 1 and figures["cpu_per_image"][0] > 0
    assert figures["peak_device_memory"] is None
    assert list(figures["further"]) == [str(batch) for batch in more.get("further", ())]
    json.dumps(figures)
    return figures if more else torch.load(images, weights_only=True)


@pytest.mark.slow
def test_both_programs_draw_the_same_images(folder, tmp_path):
    ours, theirs = (measured(program, folder, tmp_path) for program in ("ours", "diffusers"))
    assert ours.shape == theirs.shape == (2, 64, 64, 3)
    assert theirs.std() > 0.1
    assert (ours - theirs).abs().mean() < 4e-5


@pytest.mark.slow
@pytest.mark.parametrize(("program", "asked"), [("diffusers", "count"), ("ours", "rate")])
def test_a_program_is_looked_into_after_it_is_timed(program, asked, folder, tmp_path):
    found = measured(program, folder, tmp_path, profile=True, **{asked: True})
    assert found["profile"]["steps"] == STEPS and found["profile"]["calls"] > 1000
    assert {"convolutions", "products", "norms", "elementwise"} <= set(found["profile"]["seconds"])
    assert found[{"count": "flop", "rate": "matrix_rate"}[asked]] > 1e6
    assert ("flop" in found, "matrix_rate" in found) == (asked == "count", asked == "rate")


@pytest.mark.slow
def test_a_process_draws_further_batches_with_what_it_has_loaded(folder, tmp_path):
    asked = {"further": [1], "images": 4, "warm": 3, "profile": True, "profile_further": False, "stages": True}
    found = measured("plain", folder, tmp_path, count=True, **asked)
    more = found["further"]["1"]
    assert more["load"] == found["load"] and len(more["per_image"]) == 1
    assert list(found["stages"]) == list(more["stages"]) == ["text", "prior", "decoder", "upsampler"]
    assert ("flop" in found, "flop" in more) == ("profile" in found, "profile" in more) == (True, False)


def test_what_there_is_to_offload_is_said(monkeypatch):
    with pytest.raises(ValueError, match="name a --device other than the CPU"):
        table.bench_speed(device="cpu", offload=True)


@pytest.mark.slow
def test_both_programs_draw_in_bfloat16_too(folder, tmp_path):
    """diffusers' own enlargement refuses bfloat16 on a CPU; the measurement lends it a cast."""
    ours, theirs = (measured(program, folder, tmp_path, "bf16") for program in ("ours", "diffusers"))
    assert ours.shape == theirs.shape == (2, 64, 64, 3) and ours.isfinite().all() and theirs.isfinite().all()
    assert (ours - theirs).abs().mean() < 0.1 < theirs.std()


def run(load, per_image, memory, value):
    theirs = {
        "load": load[0],
        "first": 4.0,
        "per_image": [per_image[0]] * 2,
        "cpu_per_image": [10.0],
        "peak_memory": memory[0],
    }
    ours = {
        "load": load[1],
        "first": 2.0,
        "per_image": [per_image[1]] * 2,
        "cpu_per_image": [4.0],
        "peak_memory": memory[1],
    }
    image = torch.full((1, 2, 2, 3), 0.5)
    return {"diffusers": theirs | {"image": image}, "ours": ours | {"image": image + value}}


def test_ratios_by_definition():
    one = [
        run((8, 2), (6.0, 3.0), (10, 5), 0.0),
        run((6, 2), (8.0, 2.0), (10, 4), 0.25),
        run((9, 2), (9.0, 3.0), (8, 4), 0.0),
    ]
    four = [run((8, 2), (4.0, 1.5), (10, 5), 0.0) for _ in range(3)]
    figures = {"ratios": {}, "range": {}, "difference": {}, "medians": {}}
    table._sum_up(figures, "fp32", {1: one, 4: four})
    ratios = figures["ratios"]["fp32"]
    assert ratios == pytest.approx(
        {
            "load": 4.0,
            "first": 2.0,
            "seconds_per_image": 3.0,
            "peak_memory": 0.5,
            "batch_4": 4 / 1.5,
            "batch_4_over_one": 0.5,
            "cpu_seconds_per_image": 2.5,
            "cpu_batch_4": 2.5,
            "cpu_batch_4_over_one": 1.0,
        }
    )
    assert figures["range"]["fp32"]["seconds_per_image"] == [2.0, 4.0]
    assert figures["difference"]["fp32"] == 0.25
    assert figures["medians"]["fp32"]["ours"]["per_image"] == 3.0


def test_a_bench_asks_each_program_once_for_what_it_alone_can_tell(monkeypatch, tmp_path, capsys):
    """FLOP of diffusers, the rate beside ours, both in the first round of the first batch; profiles of every batch."""
    jobs = []

    def process(job):
        jobs.append(job)
        torch.save(torch.full((1, 2, 2, 3), 0.5), job["save_to"])
        found = {"load": 2.0, "first": 2.0, "per_image": [2.0], "cpu_per_image": [2.0], "peak_memory": 1.0}
        found |= {"peak_device_memory": 4.0} | ({"flop": 4e12} if job["count"] else {})
        found |= {"matrix_rate": 8e12} if job["rate"] else {}
        profile = {"seconds": {"norms": 1.0}, "busy": 1.0, "wall": 2.0, "idle_share": 0.5, "calls": 3, "launches": 2,
                   "launch_seconds": 0.1, "steps": [3, 3, 2]}  # fmt: skip
        return found | ({"profile": profile} if job["profile"] else {})

    monkeypatch.setattr(runs, "_process", process)
    monkeypatch.setattr(table, "model_folder", lambda *_: tmp_path)
    how = {"dtypes": ["fp16"], "batches": [1, 4], "rounds": 2, "device": "cpu", "profile": True}
    figures = table.bench_speed(folder=str(tmp_path), as_json=True, **how)
    assert json.loads(capsys.readouterr().out) == figures
    asked = [(job["program"], job["batch"], job["count"], job["rate"], job["profile"]) for job in jobs]
    first = {("diffusers", 1, True, False, True), ("ours", 1, False, True, True)}
    plain = {("diffusers", 1, False, False, False), ("ours", 1, False, False, False)}
    assert set(asked[:2]) == first and set(asked[2:4]) == plain
    assert {row[2:] for row in asked[4:]} == {(False, False, True), (False, False, False)}
    found = figures["efficiency"]["fp16"]
    assert found["flop_per_image"] == 4e12 and found["matrix_rate"] == 8e12
    row = {"per_image": 2.0, "peak_memory": 1.0, "peak_device_memory": 4.0, "of_matrix_rate": 0.25}
    assert found["batches"] == {batch: {"diffusers": row, "ours": row} for batch in ("1", "4")}
    assert set(figures["profiles"]["fp16"]) == {"1", "4"}
    table.bench_speed(folder=str(tmp_path), **how)
    said = capsys.readouterr().out
    assert "25.0% of the matrix rate" in said and "(50% idle)" in said and "norms" in said


class Placed:
    """A part, or a pipeline of diffusers, that writes down where it is put."""

    def __init__(self, name, places):
        self.name, self.places, self.module = name, places, self

    def to(self, device):
        self.places.append((self.name, str(device)))

    def enable_model_cpu_offload(self, device):
        self.places.append((self.name, "as it runs", str(device)))


def test_an_offloaded_part_is_on_the_device_alone():
    places = []
    part = parts.Offloaded({name: Placed(name, places) for name in "abc"}, torch.device("cuda"))
    assert [part(name).name for name in "aabc"] == ["a", "a", "b", "c"]
    assert places == [("a", "cuda"), ("a", "cpu"), ("b", "cuda"), ("b", "cpu"), ("c", "cuda")]


@pytest.mark.parametrize(("job", "placed"), [({}, ("p", "cuda")), ({"offload": True}, ("p", "as it runs", "cuda"))])
def test_diffusers_is_placed_as_its_documentation_says(job, placed):
    places = []
    parts.place_pipeline(Placed("p", places), job, torch.device("cuda"))
    assert places == [placed]


def test_bars_are_as_long_as_their_values(tmp_path):
    path = tmp_path / "bars.png"
    bars.save_bars([bars.Bar("a", 1.0, 1.0, 1.0), bars.Bar("b", 2.0, 2.0, 2.0)], "title", path)
    image = Image.open(path).convert("RGB")
    middles = [int(bars.TOP + bars.ROW * (row + 0.5)) - 5 for row in range(2)]
    lengths = [sum(image.getpixel((x, y)) == bars.BAR for x in range(image.width)) for y in middles]
    assert lengths[1] == pytest.approx(2 * lengths[0], abs=4)
    with pytest.raises(ValueError, match="at least one"):
        bars.save_bars([], "title", path)


def test_the_small_size_has_karlos_shape():
    small, full = sizes.half_size(), sizes.full_size()
    assert [2 * width for width in small.decoder.unet.channels] == list(full.decoder.unet.channels)
    assert small.decoder.unet.attention == full.decoder.unet.attention
    assert small.super_res.time_shift == full.super_res.time_shift


@pytest.mark.slow
@torch.no_grad()
def test_more_steps_come_nearer(folder):
    model = steps.placed_model(folder, "cpu")
    found = steps.Study(model, ["the red cat"], (1.0, 1.0)).run([2, 12], 40)
    assert set(found) == {"prior", "decoder"} and "ddim" in found["decoder"]
    for measure in found.values():
        assert measure["ddim"][12] < measure["ddim"][2]


def test_on_a_device_a_process_draws_all_batches_behind_warm_ones(monkeypatch, tmp_path):
    jobs, environments = [], []

    def process(job):
        jobs.append(job)
        torch.save(torch.full((1, 2, 2, 3), 0.5), job["save_to"])
        seconds = {"diffusers": 6.0, "ours": 2.0, "plain": 3.0}[job["program"]]
        found = {"load": 2.0, "first": 2.0, "per_image": [seconds], "cpu_per_image": [1.0], "peak_memory": 1.0,
                 "peak_device_memory": 4.0}  # fmt: skip
        laps = {"stages": {"text": 1.0}} if job["stages"] else {}
        return found | laps | {"further": {"4": found | laps | {"per_image": [seconds / 2]}}}

    monkeypatch.setattr(table, "choose_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(table, "describe_device", str)
    monkeypatch.setattr(runs, "_process", process)
    monkeypatch.setattr(table, "model_folder", lambda *_: tmp_path)
    how = {"dtypes": ["bf16"], "batches": [1, 4], "rounds": 1, "device": "cuda", "profile": True, "plain": True}
    figures = table.bench_speed(folder=str(tmp_path), as_json=True, **how)
    assert [(job["program"], job["batch"], job["further"]) for job in jobs] == [
        (program, 1, [4]) for program in ("diffusers", "ours", "plain")
    ]
    assert [(job["warm"], job["images"], job["profile"]) for job in jobs] == [(1, 3, True), (2, 4, True), (2, 4, False)]
    ratios = figures["ratios"]["bf16"]
    assert (ratios["seconds_per_image"], ratios["plain"], ratios["plain_batch_4"]) == (3.0, 1.5, 1.5)
    assert figures["efficiency"]["bf16"]["batches"]["4"]["plain"]["per_image"] == 1.5
    assert set(figures["stages"]["bf16"]["1"]) == {"ours", "plain"}

    class Done:
        returncode, stdout = 0, "{}"

    monkeypatch.undo()
    monkeypatch.delenv("UNCLIP_PLAIN", raising=False)
    monkeypatch.setattr(fresh_process.subprocess, "run", lambda command, env, **_: environments.append(env) or Done)
    for program in ("ours", "plain"):
        runs._process({"program": program})
    assert [environment.get("UNCLIP_PLAIN") for environment in environments] == [None, "1"]


@pytest.mark.parametrize(("whole", "cut"), [((25, 25, 7), [7, 7, 2]), ((3, 3, 2), [3, 3, 2]), ((90, 9, 1), [7, 2, 1])])
def test_a_profile_is_of_fewer_steps_and_a_schedule_of_two_or_more(whole, cut, monkeypatch):
    seen, job = [], {"steps": list(whole), "profile": True}
    monkeypatch.setattr(worker, "profiled", lambda run, device: run() is None or {})
    found = worker._looked_into(lambda seed: seen.append(job["steps"]) or torch.zeros(1), job, torch.device("cpu"))
    assert found["profile"]["steps"] == cut and seen == [cut, cut] and job["steps"] == list(whole)
