"""`unclip queue` against small servers that break down, forget, refuse and lie: nothing is lost or done twice."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from fake_comfy import FakeComfy, prompt_in

from unclip.cli.queue import queue_file
from unclip.cli.remote import downloads, worker
from unclip.cli.remote.batch import run_batch
from unclip.cli.remote.journal import FILE, Journal
from unclip.cli.remote.rows import Batch
from unclip.cli.remote.scheduler import LOST_MAX
from unclip.cli.remote.server import ComfyServer, Unreachable

WORKFLOW = {"1": {"class_type": "Thing", "inputs": {"seed": 0, "text": "a"}}}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Failures are noticed at once, so that the tests need not wait."""
    monkeypatch.setattr(worker, "RETRY_WAIT", 0.02)
    monkeypatch.setattr(worker, "PROBE_WAIT", 0.05)
    monkeypatch.setattr(worker, "PROBE_MAX", 0.1)


@pytest.fixture
def comfy():
    with FakeComfy() as server:
        yield server


@pytest.fixture
def other():
    with FakeComfy() as server:
        yield server


def batch(count):
    return Batch(WORKFLOW, count=count)


def go(count, servers, folder, **more):
    return run_batch(batch(count), [ComfyServer(server.url) for server in servers], folder, **more)


def seeds(folder):
    """row number -> the seed in its file."""
    return {int(path.name[3:8]): prompt_in(path)["seed"] for path in folder.glob("row*.png")}


def expected(count):
    return {row: row - 1 for row in range(1, count + 1)}


def all_ran(*servers):
    return sorted(inputs["seed"] for server in servers for inputs in server.ran)


def entries(folder):
    return [json.loads(line) for line in (folder / FILE).read_text().splitlines()]


def test_every_row_has_its_file_and_ran_once(comfy, other, tmp_path):
    told = []
    report = go(30, [comfy, other], tmp_path, on_result=told.append)
    assert report.exit_code == 0 and report.rows == 30 and not report.failed
    assert seeds(tmp_path) == expected(30)
    assert all_ran(comfy, other) == list(range(30)) and comfy.ran and other.ran
    assert sorted(result.row for result in told) == list(range(1, 31))
    assert report.results[1].warnings == ["Mind this."]


def test_it_runs_where_an_event_loop_runs_already(comfy, tmp_path):
    async def notebook():
        return go(3, [comfy], tmp_path)

    assert asyncio.run(notebook()).exit_code == 0 and seeds(tmp_path) == expected(3)


@pytest.mark.parametrize("depth", [1, 3])
def test_no_more_than_depth_prompts_wait_at_a_server(comfy, tmp_path, depth):
    comfy.seconds = 0.1
    go(8, [comfy], tmp_path, depth=depth)
    assert comfy.deepest == depth


def test_again_queues_nothing(comfy, tmp_path):
    go(5, [comfy], tmp_path)
    report = go(5, [comfy], tmp_path)
    assert report.kept == 5 and report.exit_code == 0 and len(comfy.ran) == 5


def test_a_file_that_was_deleted_is_made_again(comfy, tmp_path):
    go(5, [comfy], tmp_path)
    (tmp_path / "row00003-1.png").unlink()
    assert go(5, [comfy], tmp_path).kept == 4
    assert seeds(tmp_path) == expected(5) and len(comfy.ran) == 6


def test_files_carry_the_rows_name(comfy, tmp_path):
    table = [{"name": "a/b: ü", "1.seed": "3"}]
    run_batch(Batch(WORKFLOW, table=table), [ComfyServer(comfy.url)], tmp_path)
    assert [path.name for path in tmp_path.glob("*.png")] == ["row00001-a_b_ ü-1.png"]


# ---- servers that fail ----


def kill_after(server, ran, then=None):
    """A thread that kills the server once so many prompts ran, and then does something."""

    def watch():
        while len(server.ran) < ran:
            time.sleep(0.005)
        server.kill()
        if then:
            then()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def test_a_dead_servers_work_moves_to_the_other(comfy, other, tmp_path):
    thread = kill_after(comfy, 3)
    report = go(30, [comfy, other], tmp_path)
    thread.join()
    assert report.exit_code == 0 and seeds(tmp_path) == expected(30)
    assert set(all_ran(comfy, other)) == set(range(30))


def test_a_server_that_comes_back_works_again(comfy, tmp_path):
    def again():
        time.sleep(0.3)
        comfy.start()

    thread = kill_after(comfy, 3, again)
    report = go(20, [comfy], tmp_path)
    thread.join()
    assert report.exit_code == 0 and seeds(tmp_path) == expected(20)


def test_a_server_that_restarts_unnoticed_has_forgotten_and_is_asked_again(comfy, tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "RETRY_WAIT", 0.5)  # it is back before the client gives it up
    thread = kill_after(comfy, 3, comfy.start)
    report = go(12, [comfy], tmp_path)
    thread.join()
    assert report.exit_code == 0 and seeds(tmp_path) == expected(12)


def test_no_server_at_all_ends_after_the_patience_and_goes_on_later(comfy, tmp_path):
    comfy.kill()
    report = go(4, [comfy], tmp_path, patience=0.2)
    assert report.exit_code == 1 and report.missing == [1, 2, 3, 4]
    comfy.start()
    assert go(4, [comfy], tmp_path).exit_code == 0 and seeds(tmp_path) == expected(4)


def test_a_row_that_brings_servers_down_does_not_do_so_for_ever(tmp_path):
    with FakeComfy() as comfy:
        comfy.judge = lambda prompt: comfy.history.clear() or comfy.waiting.clear()
        comfy._end = lambda prompt_id, prompt: None  # every prompt is forgotten
        report = go(1, [comfy], tmp_path)
    (failed,) = report.failed
    assert f"lost {LOST_MAX} times" in failed.error and report.exit_code == 1
    assert len(comfy.posted) == LOST_MAX


def test_what_another_server_does_meanwhile_is_cancelled_when_one_is_back(other, tmp_path):
    other.seconds = 0.2
    with FakeComfy(seconds=0.4) as slow:
        client = ComfyServer(slow.url)
        queued = client.queued

        async def away():
            if slow.posted and len(other.posted) < 8:
                raise Unreachable("It is away.")
            return await queued()

        client.queued = away
        report = run_batch(batch(8), [client, ComfyServer(other.url)], tmp_path)
        assert report.exit_code == 0 and seeds(tmp_path) == expected(8)
    given_up = {entry["row"] for entry in entries(tmp_path) if entry["kind"] == "dropped"}
    assert given_up and len(slow.cancelled) == len(given_up)


def test_a_download_that_breaks_off_is_fetched_again(comfy, tmp_path):
    comfy.cut = 2
    report = go(3, [comfy], tmp_path)
    assert report.exit_code == 0 and seeds(tmp_path) == expected(3)
    assert not list(tmp_path.glob(".*part")) and len(comfy.ran) == 3


def test_a_server_that_gives_its_own_ids_is_followed(comfy, tmp_path):
    comfy.renames = lambda prompt_id: "given-" + prompt_id
    assert go(6, [comfy], tmp_path).exit_code == 0 and seeds(tmp_path) == expected(6)
    assert len(comfy.ran) == 6


# ---- rows that fail ----


@pytest.mark.parametrize(("kind", "said"), [("refuse", "node 1 (Thing): Bad: no"), ("error", "node 1 (Thing): no")])
def test_rows_that_fail_everywhere_are_reported_and_the_others_done(comfy, other, tmp_path, kind, said):
    def judge(prompt):
        return (kind, "no") if prompt["1"]["inputs"]["seed"] in (2, 5) else None

    comfy.judge = other.judge = judge
    report = go(8, [comfy, other], tmp_path)
    assert report.exit_code == 1
    assert [(result.row, result.error) for result in report.failed] == [(3, said), (6, said)]
    assert {row for row, _ in seeds(tmp_path).items()} == {1, 2, 4, 5, 7, 8}
    comfy.judge = other.judge = lambda prompt: None  # what was wrong is put right
    assert go(8, [comfy, other], tmp_path).exit_code == 0 and seeds(tmp_path) == expected(8)


def test_a_server_that_refuses_everything_spoils_nothing(comfy, other, tmp_path):
    comfy.judge = lambda prompt: ("refuse", "no such node")
    report = go(10, [comfy, other], tmp_path)
    assert report.exit_code == 0 and all_ran(other) == list(range(10)) and not comfy.ran


# ---- crashes of this side ----


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_and_queues_nothing_twice(tmp_path):
    """The client dies without a chance to tidy up; the server works on, and what it holds is taken over."""
    with FakeComfy(seconds=0.05) as comfy:
        (tmp_path / "workflow.json").write_text(json.dumps(WORKFLOW))
        command = [sys.executable, "-m", "unclip", "queue", str(tmp_path / "workflow.json"), "--server", comfy.url]
        command += ["--count", "30", "--depth", "4", "--output", str(tmp_path / "out")]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while len(comfy.ran) < 5 and process.poll() is None:
            time.sleep(0.005)
        assert process.poll() is None, "the client ended too soon"
        process.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
        process.wait()
        done = len(comfy.ran)
        report = go(30, [comfy], tmp_path / "out", depth=4)
        assert report.exit_code == 0 and done < 30
        assert seeds(tmp_path / "out") == expected(30)
        assert all_ran(comfy) == list(range(30))
        assert set(comfy.posted.values()) == {1}


def test_a_line_that_a_crash_cut_off_does_not_count(comfy, tmp_path):
    go(3, [comfy], tmp_path)
    with (tmp_path / FILE).open("ab") as file:
        file.write(b'{"kind": "done", "row": 9')
    assert go(3, [comfy], tmp_path).kept == 3
    assert all(entry["kind"] for entry in entries(tmp_path))


def test_a_journal_of_another_batch_or_a_damaged_one_is_refused(comfy, tmp_path):
    go(3, [comfy], tmp_path)
    with pytest.raises(ValueError, match="journal of another batch"):
        go(4, [comfy], tmp_path)
    (tmp_path / FILE).write_text("what?\n")
    with pytest.raises(ValueError, match="damaged"):
        go(3, [comfy], tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="the system has no such lock")
def test_two_processes_do_not_share_a_journal(tmp_path):
    journal = Journal(tmp_path, "x")
    with pytest.raises(ValueError, match="Another process"):
        Journal(tmp_path, "x")
    journal.close()


def test_a_full_disk_stops_the_batch_with_the_reason(comfy, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(downloads.os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        go(3, [comfy], tmp_path)
    monkeypatch.undo()
    assert go(3, [comfy], tmp_path).exit_code == 0 and all_ran(comfy) == [0, 1, 2]


# ---- the command ----


def test_the_command_says_what_failed_and_how_it_ended(comfy, tmp_path, capsys):
    comfy.judge = lambda prompt: ("error", "no star") if prompt["1"]["inputs"]["text"] == "star" else None
    (tmp_path / "workflow.json").write_text(json.dumps(WORKFLOW))
    (tmp_path / "rows.csv").write_text("name,1.text\none,circle\ntwo,star\n")
    code = queue_file(
        tmp_path / "workflow.json", [comfy.url], table=tmp_path / "rows.csv", vary=["1.seed=1..2"],
        output=tmp_path / "out", as_json=True,
    )  # fmt: skip
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert code == 1 and report["rows"] == 4 and report["failed"] == 2
    assert "2 of 4 rows are done" in err and "row 3 (1.text='star', 1.seed=1): node 1 (Thing): no star" in err
    names = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert names == ["row00001-one-1.png", "row00002-one-1.png"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"vary": ["1.seed"]}, "--vary '1.seed'"),
        ({"vary": ["1.seed=1", "1.seed=2"]}, "twice"),
        ({"settings": ["1.text"]}, "--set '1.text'"),
        ({"count": 0}, "'count' is 0"),
        ({"depth": 0}, "room for one prompt"),
        ({"servers": ["ftp://x"]}, "is no address"),
        ({"servers": []}, "There must be a server"),
        ({"path": "gone.json"}, "gone.json cannot be read"),
        ({"table": "gone.csv"}, "gone.csv"),
    ],
)
def test_wrong_input_is_refused_with_a_sentence(tmp_path, capsys, arguments, said):
    (tmp_path / "workflow.json").write_text(json.dumps(WORKFLOW))
    given = {"path": tmp_path / "workflow.json", "servers": ["http://127.0.0.1:1"], "output": tmp_path / "out"}
    given |= arguments
    assert queue_file(given.pop("path"), given.pop("servers"), **given) == 2
    assert said in capsys.readouterr().err
