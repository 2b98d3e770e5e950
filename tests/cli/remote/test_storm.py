"""`unclip queue` in a storm: servers that are broken in every way we know, alone and beside a healthy one.

Beside a healthy one no row is lost or done twice; alone, the run ends with a sentence a row or one for the server.
"""

import asyncio
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
from fake_comfy import FakeComfy, png, prompt_in
from PIL import Image

from unclip.__main__ import main
from unclip.cli.queue import queue_file, summary
from unclip.cli.remote import journal as journals
from unclip.cli.remote import scheduler, worker
from unclip.cli.remote import server as servers
from unclip.cli.remote.batch import run_batch
from unclip.cli.remote.rows import Batch
from unclip.cli.remote.server import ComfyServer

WORKFLOW = {"1": {"class_type": "Thing", "inputs": {"seed": 0, "text": "a"}}}
ROWS = 12
JPEG = io.BytesIO()
Image.effect_noise((64, 64), 50).save(JPEG, "JPEG")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Failures are noticed at once, so that the tests need not wait."""
    for name, seconds in (("RETRY_WAIT", 0.01), ("PROBE_WAIT", 0.02), ("PROBE_MAX", 0.1), ("POLL_MAX", 0.1)):
        monkeypatch.setattr(worker, name, seconds)
    monkeypatch.setattr(servers, "FILE_MAX", 2**20)
    monkeypatch.setattr(servers, "JSON_MAX", 2**20)


def on(where, answer):
    """A fault of one path: `answer(handler)` in the place of what a ComfyUI says there."""
    return lambda handler, path: path.startswith(where) and answer(handler)


def says(status, body, **headers):
    return lambda handler: handler.send(status, body, **headers)


def history(row):
    """/history answers with `row` for whatever is asked."""
    return on("/history", lambda handler: handler.send(200, {handler.path.rsplit("/", 1)[1]: row}))


def output(entry):
    return history({"status": {"status_str": "success"}, "outputs": {"1": {"images": [entry]}}})


def half_of_the_time(fault):
    chance = random.Random(7)
    return lambda handler, path: chance.random() < 0.5 and fault(handler, path)


ODD = [None, [], 5, "x", {"queue_running": 5, "queue_pending": {}}, {"queue_running": [[]], "queue_pending": [None]}]
FAULTS = {
    **{f"queue says {json.dumps(value)}": on("/queue", says(200, json.dumps(value).encode())) for value in ODD},
    **{f"prompt says {json.dumps(value)}": on("/prompt", says(200, json.dumps(value).encode())) for value in ODD[:4]},
    **{f"history says {json.dumps(value)}": on("/history", says(200, json.dumps(value).encode())) for value in ODD[:4]},
    "id is a number": on("/prompt", says(200, {"prompt_id": 5})),
    "id is a path": on("/prompt", says(200, {"prompt_id": "../../queue"})),
    "node_errors are odd": on("/prompt", says(200, {"prompt_id": "a", "node_errors": {"1": None}})),
    "history row is a list": history([1]),
    "outputs are a list": history({"outputs": [1], "status": {}}),
    "an output is a text": history({"outputs": {"1": "x"}}),
    "status is a text": history({"status": "done", "outputs": {}}),
    "messages are odd": history({"status": {"status_str": "error", "messages": [5, None]}}),
    "a message is odd": history({"status": {"status_str": "error", "messages": [["execution_error", None]]}}),
    "no outputs": history({"status": {"status_str": "success"}, "outputs": {}}),
    "a file's name is a number": output({"filename": 5}),
    "a file's name is a surrogate": output({"filename": "\ud800.png"}),
    "a file is not there": output({"filename": "gone.png"}),
    "html everywhere": lambda handler, path: handler.send(200, b"<html>Sign in</html>"),
    "html for files": on("/view", says(200, b"<html>Sign in</html>")),
    "nothing for files": on("/view", says(200, b"")),
    "half an image": on("/view", says(200, png("x" * 200)[:-30])),
    "half a JPEG": on("/view", says(200, JPEG.getvalue()[: len(JPEG.getvalue()) // 2])),
    "a huge file": on("/view", says(200, bytes(2**21))),
    "a huge answer": on("/queue", says(200, b" " * 2**21)),
    "nested deep": on("/queue", says(200, b"[" * 200_000)),
    "bytes": on("/queue", says(200, b"\xff\xfe\x00")),
    "a number of 5000 digits": on("/queue", says(200, b"9" * 5000)),
    "redirects": lambda handler, path: handler.send(302, b"", Location="http://127.0.0.1:1/elsewhere"),
    "redirected files": on("/view", says(307, b"", Location="http://127.0.0.1:1/x.png")),
    "401": lambda handler, path: handler.send(401, {}),
    "403": lambda handler, path: handler.send(403, {}),
    "401 for prompts": on("/prompt", says(401, {})),
    "404": lambda handler, path: handler.send(404, b"not here"),
    "500": lambda handler, path: handler.send(500, b"oops"),
    "500 for prompts": on("/prompt", says(500, b"oops")),
    "500 for history": on("/history", says(500, b"oops")),
    "503": lambda handler, path: handler.send(503, b""),
    "503 for prompts": on("/prompt", says(503, b"")),
    "drops": lambda handler, path: handler.drop(),
    "drops prompts": on("/prompt", lambda handler: handler.drop()),
    "drops files": on("/view", lambda handler: handler.drop()),
    "drops half": half_of_the_time(lambda handler, path: handler.drop()),
    "500 half the time": half_of_the_time(lambda handler, path: handler.send(500, b"")),
    "odd half the time": half_of_the_time(lambda handler, path: handler.send(200, [1])),
    "forgets": on("/history", says(200, {})),
    "drips": lambda handler, path: handler.drip(),
    "drips files": on("/view", lambda handler: handler.drip(data=b"x")),
    "no http": lambda handler, path: handler.wfile.write(b"hello\r\n\r\n") or True,
    "one id for all": None,
    "refuses": None,
}


def broken(name):
    """A server with one of the faults."""
    comfy = FakeComfy(seconds=0)
    if name == "one id for all":
        comfy.renames = lambda prompt_id: "same"
    elif name == "refuses":
        comfy.judge = lambda prompt: ("refuse", "no")
    else:
        comfy.odd = FAULTS[name]
    return comfy


def go(folder, *comfies, rows=ROWS, patience=0.5, timeout=0.4):
    clients = [ComfyServer(comfy.url, timeout=timeout) for comfy in comfies]
    began = time.monotonic()
    report = run_batch(Batch(WORKFLOW, count=rows), clients, folder, patience=patience)
    assert time.monotonic() - began < 30
    return report


def seeds(folder):
    return {int(path.name[3:8]): prompt_in(path)["seed"] for path in folder.glob("row*.*")}


def expected(rows=ROWS):
    return {row: row - 1 for row in range(1, rows + 1)}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_beside_a_healthy_server_nothing_is_lost_or_doubled(tmp_path, name):
    with broken(name) as bad, FakeComfy(seconds=0.02) as good:
        report = go(tmp_path, bad, good, timeout=0.4 if "drip" in name else 3)
    assert report.exit_code == 0, report.as_dict()
    assert seeds(tmp_path) == expected()
    done = [json.loads(line) for line in (tmp_path / journals.FILE).read_text().splitlines()]
    assert sorted(entry["row"] for entry in done if entry["kind"] == "done") == list(range(1, ROWS + 1))
    assert max(good.posted.values()) == 1 and len(good.ran) <= ROWS


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_alone_it_ends_with_a_sentence_and_the_next_run_goes_on(tmp_path, name):
    with broken(name) as comfy:
        report = go(tmp_path, comfy, rows=2)
        assert report.exit_code == 1 or "half" in name, report.as_dict()
        rows = {row.number: row for row in Batch(WORKFLOW, count=2).rows}
        assert len(report.results) + len(report.missing) == 2 and "Traceback" not in summary(report, rows, tmp_path)
        assert all(result.files for result in report.results.values() if not result.error)
        comfy.odd, comfy.judge, comfy.renames = (lambda *_: False), (lambda prompt: None), (lambda prompt_id: prompt_id)
        assert go(tmp_path, comfy, rows=2, timeout=5).exit_code == 0 and seeds(tmp_path) == expected(2)


@pytest.mark.slow
def test_all_of_them_at_once_beside_a_healthy_one(tmp_path):
    names = list(FAULTS)[::3]
    comfies = [broken(name) for name in names]
    try:
        with FakeComfy(seconds=0) as good:
            assert go(tmp_path, *comfies, good, rows=40).exit_code == 0
    finally:
        for comfy in comfies:
            comfy.kill()
    assert seeds(tmp_path) == expected(40)


@pytest.mark.parametrize("name", ["401", "403", "redirects", "html everywhere", "404"])
def test_what_no_waiting_mends_is_said_at_once(tmp_path, capsys, name):
    (tmp_path / "w.json").write_text(json.dumps(WORKFLOW))
    with broken(name) as comfy:
        began = time.monotonic()
        assert queue_file(tmp_path / "w.json", [comfy.url.replace("//", "//me:secret@")], output=tmp_path / "out") == 1
        assert time.monotonic() - began < 3
    said = capsys.readouterr().err
    assert comfy.url in said and "secret" not in said and "0 of 1 rows are done" in said
    assert {"401": "other credentials", "redirects": "not followed"}.get(name, "") in said


def test_a_row_that_failed_waits_for_a_server_that_is_only_just_away(tmp_path, monkeypatch):
    journal = journals.Journal(tmp_path, "x")
    rows = scheduler.Scheduler([1, 2], ["good", "bad"], journal, lambda result: None)
    rows.set_up("good", False)
    rows.fail(rows.take("bad"), "no")
    assert not rows.results
    rows.set_up("good", True)
    assert rows.take("good").row == 1
    rows.set_up("good", False)
    rows.fail(rows.take("bad"), "no")
    monkeypatch.setattr(scheduler, "RETURN_WAIT", 0)
    rows.set_up("good", False)  # seen again, and away for good
    assert rows.results[2].error == "no"
    journal.close()


def test_a_redirect_is_not_followed_not_even_with_credentials(tmp_path):
    with FakeComfy() as target, FakeComfy() as comfy:
        for where in ("/queue", "/view"):
            comfy.odd = on(where, lambda handler: handler.send(302, b"", Location=target.url + handler.path))
            report = go(tmp_path / where[1:], comfy, rows=1)
            assert report.exit_code == 1 and not list((tmp_path / where[1:]).glob("row*"))
        assert target.requests == []


@pytest.mark.parametrize(
    ("form", "suffix"), [("PNG", "png"), ("JPEG", "jpg"), ("WEBP", "webp"), ("GIF", "gif"), ("TIFF", "tif")]
)
def test_the_suffix_is_that_of_the_real_format(tmp_path, form, suffix):
    data = io.BytesIO()
    Image.new("RGB", (9, 7)).save(data, form)
    with FakeComfy() as comfy:
        comfy.odd = on("/view", says(200, data.getvalue()))
        comfy._end = lambda prompt_id, prompt: comfy.history.update(
            {prompt_id: {"outputs": {"1": {"images": [{"filename": "../x.exe", "type": "output"}]}}}}
        )
        assert go(tmp_path, comfy, rows=1, timeout=5).exit_code == 0
    assert [path.name for path in tmp_path.glob("row*")] == [f"row00001-1.{suffix}"]


@pytest.mark.parametrize(
    ("name", "data", "kept"),
    [
        ("a.mp4", b"\0\0\0\x18ftypisom", True),
        ("a.flac", b"fLaC....", True),
        ("a.safetensors", b"\x08\0\0\0\0\0\0\0{      }", True),
        ("a.mp4", b"<html></html>", False),
        ("a.html", b"<html></html>", False),
        ("a.ps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", False),
    ],
)
def test_what_is_no_image_is_kept_only_as_what_it_is(tmp_path, name, data, kept):
    with FakeComfy() as comfy:
        comfy.odd = on("/view", says(200, data))
        comfy._end = lambda prompt_id, prompt: comfy.history.update(
            {prompt_id: {"outputs": {"1": {"gifs": [{"filename": name, "subfolder": None, "type": "output"}]}}}}
        )
        report = go(tmp_path, comfy, rows=1)
    found = [path.name for path in tmp_path.glob("row*")]
    assert found == ([f"row00001-1{Path(name).suffix}"] if kept else [])
    assert kept or name in report.failed[0].error


def test_a_large_file_is_not_held_in_memory(tmp_path, monkeypatch):
    import tracemalloc

    monkeypatch.setattr(servers, "FILE_MAX", 2**30)
    with FakeComfy() as comfy:
        comfy.odd = on(
            "/view", lambda handler: handler.drip(seconds=0, data=bytes(2**16)) if False else stream(handler)
        )

        def stream(handler):
            handler.send(200, b"", length=100 * 2**20)
            for _ in range(1600):
                handler.wfile.write(bytes(2**16))
            return True

        tracemalloc.start()
        report = go(tmp_path, comfy, rows=1, timeout=20)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert "no whole image" in report.failed[0].error and most < 30 * 2**20


def test_nodes_that_the_server_leaves_out_are_an_error_and_its_files_are_kept(tmp_path):
    with FakeComfy() as comfy:
        comfy.judge = lambda prompt: ("partly", "ckpt_name: 'x' not in []") if prompt["1"]["inputs"]["seed"] else None
        report = go(tmp_path, comfy, rows=2)
    (failed,) = report.failed
    assert report.exit_code == 1 and failed.error == "node 1 (Thing): Bad: ckpt_name: 'x' not in []"
    assert failed.files == ["row00002-1.png"] and seeds(tmp_path) == expected(2)
    rows = {row.number: row for row in Batch(WORKFLOW, count=2).rows}
    assert "it saved row00002-1.png nevertheless" in summary(report, rows, tmp_path)
    with FakeComfy() as comfy:
        assert go(tmp_path, comfy, rows=2).kept == 1 and len(comfy.ran) == 1


def test_what_the_server_left_out_is_known_after_a_crash_too(tmp_path):
    with FakeComfy(seconds=0.3) as comfy:
        comfy.judge = lambda prompt: ("partly", "no")
        comfy.odd = on("/queue", lambda handler: comfy.posted and handler.drop())
        go(tmp_path, comfy, rows=1, patience=0)
        comfy.odd = lambda *_: False
        assert "Bad: no" in go(tmp_path, comfy, rows=1).failed[0].error and len(comfy.posted) == 1


@pytest.mark.parametrize("name", ["赤い丸" * 27, "é" * 300, "x" * 300, "a\0b", "👩‍🚀" * 60])
def test_a_rows_name_is_bounded_in_bytes_and_its_files_differ(tmp_path, name):
    with FakeComfy() as comfy:
        batch = Batch(WORKFLOW, table=[{"name": name, "1.seed": "0"}, {"name": name, "1.seed": "1"}])
        assert run_batch(batch, [ComfyServer(comfy.url)], tmp_path).exit_code == 0
    names = [path.name for path in tmp_path.glob("row*")]
    assert len(set(names)) == 2 and all(len(name.encode()) < 143 for name in names)
    assert seeds(tmp_path) == expected(2)


def test_a_servers_words_cannot_steer_the_terminal(tmp_path, capsys):
    (tmp_path / "w.json").write_text(json.dumps(WORKFLOW))
    with FakeComfy() as comfy:
        comfy.judge = lambda prompt: ("refuse", "\x1b[2J\r\n" + "long " * 10_000)
        queue_file(tmp_path / "w.json", [comfy.url], output=tmp_path / "out")
    said = capsys.readouterr().err
    assert "\x1b" not in said and len(said) < 2000


# ---- interrupts and crashes ----

COMMAND = """
import sys
from unclip.cli.remote import worker
from unclip.cli.queue import queue_file
worker.RETRY_WAIT = worker.PROBE_WAIT = 0.02
print("ready", flush=True)
sys.exit(queue_file(sys.argv[1], sys.argv[3:], vary=["1.seed=0..11"], output=sys.argv[2]))
"""


def start(tmp_path, *comfies):
    (tmp_path / "w.json").write_text(json.dumps(WORKFLOW))
    command = [sys.executable, "-c", COMMAND, str(tmp_path / "w.json"), str(tmp_path / "out")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*command, *(comfy.url for comfy in comfies)], **pipes)
    process.stdout.readline()
    return process


@pytest.mark.skipif(os.name == "nt", reason="another way to interrupt")
@pytest.mark.parametrize(
    ("name", "notebook"),
    [(name, False) for name in ("drips", "drips files", "503", "busy", "silent", "no such host")]
    + [("busy", True), ("silent", True)],
)
def test_an_interrupt_is_obeyed_at_once(tmp_path, monkeypatch, name, notebook):
    """In a notebook's cell too, which runs inside an event loop."""
    monkeypatch.setattr(worker, "PROBE_WAIT", 60)
    if name == "no such host":  # a name server that does not answer
        monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: time.sleep(20))
    with FakeComfy(seconds=60) if name not in FAULTS else broken(name) as comfy:
        if name == "silent":
            comfy.odd = lambda *_: time.sleep(20)
        url = "http://nowhere.example" if name == "no such host" else comfy.url
        signalled = []

        def interrupt():
            signalled.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

        async def cell():
            return run_batch(Batch(WORKFLOW, count=2), [ComfyServer(url)], tmp_path)

        threading.Timer(0.5, interrupt).start()
        if notebook:
            with closing(asyncio.new_event_loop()) as loop:
                report = loop.run_until_complete(cell())
        else:
            report = run_batch(Batch(WORKFLOW, count=2), [ComfyServer(url)], tmp_path)
        assert time.monotonic() - signalled[0] < 1
    assert report.interrupted and report.exit_code == 130 and report.missing == [1, 2]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="another way to kill")
def test_killed_again_and_again_nothing_is_lost_or_queued_twice(tmp_path):
    with FakeComfy(seconds=0.1) as comfy, FakeComfy(seconds=0.1) as other:
        for pause in (0.05, 0.15, 0.3, 0.2):
            process = start(tmp_path, comfy, other)
            time.sleep(pause)
            process.kill()
            process.communicate()
        process = start(tmp_path, comfy, other)
        assert process.wait(60) == 0
        ran = sorted(inputs["seed"] for inputs in comfy.ran + other.ran)
        assert ran == list(range(12)) and seeds(tmp_path / "out") == expected()
    assert not list((tmp_path / "out").glob(".*"))


def test_an_interrupt_while_the_rows_are_laid_out_is_one_too(tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    (tmp_path / "w.json").write_text(json.dumps(WORKFLOW))
    monkeypatch.setattr(Batch, "__init__", interrupted)
    assert main(["queue", str(tmp_path / "w.json"), "--server", "host"]) == 130
    assert "interrupted" in capsys.readouterr().err


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("line", range(1, 10))
def test_the_end_may_come_before_or_after_any_line_of_the_journal(tmp_path, monkeypatch, line, when):
    write, written = journals.Journal._write, []

    def dying(self, entry):
        written.append(entry)
        if when == "after":
            write(self, entry)
        if len(written) >= line:
            raise Killed
        if when == "before":
            write(self, entry)

    with FakeComfy() as comfy:
        monkeypatch.setattr(journals.Journal, "_write", dying)
        with pytest.raises(Killed):
            go(tmp_path, comfy, rows=4)
        monkeypatch.setattr(journals.Journal, "_write", write)
        assert go(tmp_path, comfy, rows=4, timeout=5).exit_code == 0
        assert seeds(tmp_path) == expected(4) and len(comfy.ran) == 4


@pytest.mark.slow
def test_a_journal_cut_at_any_byte_is_taken_up(tmp_path):
    with FakeComfy(seconds=0) as comfy:
        go(tmp_path, comfy, rows=3)
        whole = (tmp_path / journals.FILE).read_bytes()
        for end in range(0, len(whole), 41):
            (tmp_path / journals.FILE).write_bytes(whole[:end])
            report = go(tmp_path, comfy, rows=3)
            assert report.exit_code == 0 and seeds(tmp_path) == expected(3)
