"""`unclip map` on a Ray of its own: the same images as one process, killed and taken up, on damaged data."""

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

pytest.importorskip("ray", reason="unclip map needs the extra [ray], which is not installed")

import map_tasks
from map_tasks import expected, made, rows_of, write_table
from pyarrow import parquet

from unclip.__main__ import main
from unclip.cli.mapping import job as mapping
from unclip.cli.mapping.results import Output
from unclip.cli.mapping.rows import row_seed
from unclip.cli.mapping.tasks import Setup
from unclip.unclip_core.families.loading import SHAPES, load_model
from unclip.unclip_core.pipelines import text_to_image
from unclip.unclip_core.pipelines.settings import Settings

pytestmark = pytest.mark.slow
MODEL = ("--model", "bundled (shapes)")
PROMPTS = ["a red circle on a white background", "a blue square", "a large green star"]


def run(table, folder, task=map_tasks.Draws, **settings):
    seen = []
    job = mapping.Job(Setup("text-to-image"), table, Output(str(folder)), make_task=task, **settings)
    return mapping.run(job, seen.append), seen


def test_the_command_draws_what_one_process_draws(tmp_path, capsys):
    """Each image is that of its prompt and seed alone; batches of another size round otherwise, by a level at most."""
    table = tmp_path / "t.jsonl"
    table.write_text("".join(json.dumps({"id": i, "prompt": prompt}) + "\n" for i, prompt in enumerate(PROMPTS)))
    out = tmp_path / "out"
    assert (
        main(["map", "text-to-image", *MODEL, "--data", str(table), "--output", str(out), "--batch", "2", "--json"])
        == 0
    )
    assert json.loads(capsys.readouterr().out)["made"] == 3
    model, rows = load_model(SHAPES), rows_of(out)
    assert [row["id"] for row in rows] == ["0", "1", "2"]
    for row, prompt in zip(rows, PROMPTS, strict=True):
        alone = text_to_image(model, [prompt], [row_seed(row["id"])], Settings(candidates=1))
        drawn = levels(Image.open(io.BytesIO(row["image"])))
        assert (drawn - (alone.large[0] * 255).round()).abs().max() <= 1
        assert row["seed"] == row_seed(row["id"]) and 0.2 < row["score"] <= 1


CHILD = """
import map_tasks, sys
from unclip.cli.mapping.job import Job, run
from unclip.cli.mapping.results import Output
from unclip.cli.mapping.tasks import Setup
setup, output = Setup("text-to-image"), Output(sys.argv[2])
job = Job(setup, sys.argv[1], output, batch=4, workers=(2, 2), make_task=map_tasks.DrawsSlowly)
stdout = sys.stdout  # which goes to stderr while Ray runs
run(job, lambda counts: print(counts.made, file=stdout, flush=True))
"""


def test_workers_and_the_command_itself_killed_at_any_moment(ray_environment, tmp_path):
    """SIGKILL to workers while it runs, then to the whole; the same command makes the rest: none lost, none twice."""
    table, out, rng = write_table(tmp_path / "t.csv", 120), tmp_path / "out", random.Random(0)
    child = subprocess.Popen([sys.executable, "-c", CHILD, table, str(out)], stdout=subprocess.PIPE, text=True)
    killed = 0
    try:
        for line in child.stdout:
            count = int(line) if line.strip().isdigit() else 0
            if count and killed < 2:
                killed += kill_a_worker(child.pid, rng)
            if count >= 60:
                break
    finally:
        workers = workers_of(child.pid)
        child.kill()
        child.wait()
    assert killed == 2
    before = len(rows_of(out))
    assert 0 < before < 120
    wait_for_end(workers)
    counts, _ = run(table, out, batch=4, workers=(2, 2))
    assert counts.before >= before and counts.before + counts.made == 120
    assert made(out) == expected(120)


def kill_a_worker(driver, rng):
    """SIGKILL one of the actors of the Ray that `driver` started; 1 if there was one."""
    if workers := workers_of(driver):
        os.kill(rng.choice(workers), signal.SIGKILL)
    return int(bool(workers))


def workers_of(driver):
    return [pid for pid, text in processes() if "ray::MapWorker" in text and driver in ancestors(pid)]


def processes():
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            yield int(path.parent.name), path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            pass


def ancestors(pid):
    found = []
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            break
        found.append(pid)
    return found


def wait_for_end(workers, seconds=60):
    """Until nothing of the killed run writes any more."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any("ray::MapWorker" in text for pid, text in processes() if pid in workers):
            return
        time.sleep(0.5)
    raise AssertionError("the workers outlived their driver")


def test_a_table_in_two_workers_with_failures_and_then_again(ray, tmp_path):
    table = Path(write_table(tmp_path / "t.csv", 30))
    table.write_text(table.read_text().replace("a cat 7\n", "fail\n"))
    counts, seen = run(str(table), tmp_path / "out", batch=4, workers=(2, 2))
    assert (counts.total, counts.made, counts.failed) == (30, 29, 1)
    assert seen[0].left == 30 and seen[-1].left == 0
    assert made(tmp_path / "out") == [pair for pair in expected(30) if pair[0] != "row7"]
    (failed,) = (tmp_path / "out").glob("failed-*.parquet")
    assert parquet.read_table(failed)["error"].to_pylist() == ["cannot draw ['row7']"]
    again, _ = run(str(table), tmp_path / "out", batch=5)
    assert (again.before, again.made, again.failed) == (29, 0, 1), "what failed is tried again, and nothing else"


def test_long_tables_go_to_workers_in_several_batches_at_a_time():
    job = mapping.Job(Setup("text-to-image"), "t.csv", Output("out"), batch=16, workers=(1, 2))
    shares = {rows: job.rows_a_task(rows) for rows in (1, 500, 4_095, 4_096, 6_200, 10_000, 1_000_000)}
    assert shares == {1: 16, 500: 16, 4_095: 16, 4_096: 32, 6_200: 48, 10_000: 64, 1_000_000: 64}


def test_several_batches_at_a_time_make_the_same_rows(ray, tmp_path, monkeypatch):
    monkeypatch.setattr(mapping, "TASKS_A_WORKER", 1)
    counts, seen = run(write_table(tmp_path / "t.csv", 21), tmp_path / "out", batch=2)
    assert (counts.made, counts.failed) == (21, 0) and made(tmp_path / "out") == expected(21)
    assert [c.made for c in seen] == sorted(c.made for c in seen) and len(seen) <= 5


def test_a_full_disk_ends_the_run_with_its_sentence(ray, tmp_path):
    with pytest.raises(OSError, match="No space left on device"):
        run(write_table(tmp_path / "t.csv", 8), tmp_path / "out", map_tasks.FindsTheDiskFull, batch=4)
    assert rows_of(tmp_path / "out") == []
    counts, _ = run(write_table(tmp_path / "t.csv", 8), tmp_path / "out", batch=4)
    assert counts.made == 8


def test_rows_that_cannot_be_told_apart_are_refused(ray, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("prompt\na cat\na dog\na cat\n")
    with pytest.raises(ValueError, match="1 of 3 rows .* have the id of another one"):
        run(str(table), tmp_path / "out")


def test_cells_reach_the_output_as_the_table_says_them(ray, tmp_path):
    names, folder = ["00001", "1e5", "12345678901234567890", "12345678901234567891", "NA"], tmp_path / "tables"
    folder.mkdir()
    (folder / "a.csv").write_text("id,prompt\n" + "".join(f'{name},"a cat,\n{name}"\n' for name in names))
    (folder / "b.CSV").write_text("prompt,id,seed\n7,2024-05-01,18446744073709551615\n")
    counts, _ = run(str(folder), tmp_path / "out", batch=2)
    rows = {row["id"]: row for row in rows_of(tmp_path / "out")}
    assert counts.made == 6 and rows.keys() == {*names, "2024-05-01"}
    said = {name: json.loads(row["row"])["prompt"] for name, row in rows.items()}
    assert said == {name: f"a cat,\n{name}" for name in names} | {"2024-05-01": "7"}
    assert rows["2024-05-01"]["seed"] == 2**53 - 1


@pytest.mark.parametrize(("name", "said"), [("t.jsonl", "line 2, is not valid JSON"), ("t.parquet", "t.parquet")])
def test_a_damaged_table_is_one_sentence_and_the_folder_stays_free(ray, tmp_path, name, said, capsys):
    (tmp_path / name).write_text('{"id": "a", "prompt": "x"}\n{"id"')
    assert (
        main(["map", "text-to-image", *MODEL, "--data", str(tmp_path / name), "--output", str(tmp_path / "out")]) == 1
    )
    (sentence,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("unclip: ")]
    assert said in sentence and "ray::" not in sentence
    assert not (tmp_path / "out/run.json").exists()


def test_a_table_whose_rows_were_edited_or_removed(ray, tmp_path):
    table, out = tmp_path / "t.csv", tmp_path / "out"
    table.write_text("prompt\na cat\na dog\na cow\n")
    counts, _ = run(str(table), out)
    assert (counts.made, counts.gone) == (3, 0)
    table.write_text("prompt\na cat\na white dog\n")
    counts, _ = run(str(table), out)
    assert (counts.total, counts.before, counts.made, counts.gone) == (2, 1, 1, 2)
    counts, _ = run(str(table), out)
    assert (counts.before, counts.made, counts.gone) == (2, 0, 2)
    said = [json.loads(row["row"])["prompt"] for row in rows_of(out)]
    assert sorted(said) == ["a cat", "a cow", "a dog", "a white dog"]


def test_a_part_that_goes_while_it_runs_is_noticed(ray, tmp_path):
    table, out = write_table(tmp_path / "t.csv", 4), tmp_path / "out"
    run(table, out)
    Path(table).write_text("id,prompt\nnew,a cat\n")

    def take_away(counts):
        for part in out.glob("part-*.parquet"):
            part.unlink()

    job = mapping.Job(Setup("text-to-image"), table, Output(str(out)), make_task=map_tasks.Draws)
    with pytest.raises(OSError, match="it was changed while this ran"):
        mapping.run(job, take_away)


def levels(image):
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(image.height, image.width, 3).float()


def test_embeddings_of_a_folder_with_a_damaged_image(ray, tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    for name, color in {"a": "red", "b": "blue"}.items():
        Image.new("RGB", (80, 64), color).save(images / f"{name}.png")
    (images / "c.png").write_bytes(b"no image")
    out = tmp_path / "out"
    assert main(["map", "embed", *MODEL, "--data", str(images), "--output", str(out)]) == 1
    assert "1 rows failed" in capsys.readouterr().err
    assert [row["id"] for row in rows_of(out)] == ["a.png", "b.png"]
    assert torch.tensor(rows_of(out)[0]["embedding"]).norm() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["sculpt", "--data", "t.csv"], "There is no task 'sculpt'"),
        (["text-to-image", "--data", "none.csv"], "There is no table at 'none.csv'"),
        (["text-to-image", "--data", "t.csv", "--workers", "x"], "--workers is 'x'"),
        (["text-to-image", "--data", "t.csv", "--workers", "3:2"], "the most workers, 2, are fewer"),
        (["text-to-image", "--data", "t.csv", "--batch", "0"], "batch must be 1 or more"),
        (["no.json", "--data", "t.csv"], "no.json cannot be read"),
    ],
)
def test_what_is_wrong_is_said(ray, tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    assert main(["map", *arguments, "--output", "out"]) == 1
    assert said in capsys.readouterr().err


def test_without_ray_it_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["map", "text-to-image", *MODEL, "--data", "t.csv", "--output", str(tmp_path / "o")]) == 1
    assert 'pip install "ray[data]>=2.48"' in capsys.readouterr().err
