"""`unclip queue` on a real server: every row's image, what nodes said of it, and what the server refuses."""

import json
import threading
import time

import numpy as np
import pytest
from comfy_server import Server
from PIL import Image

from unclip.cli.remote.batch import run_batch
from unclip.cli.remote.rows import Batch
from unclip.cli.remote.server import ComfyServer

pytestmark = pytest.mark.comfyui

WORKFLOW = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "queue"}},
}


def colours(folder):
    """row -> the colour of its image as one number."""
    pixels = {int(path.name[3:8]): np.asarray(Image.open(path).convert("RGB"))[0, 0] for path in folder.glob("*.png")}
    return {row: int(r) << 16 | int(g) << 8 | int(b) for row, (r, g, b) in pixels.items()}


def test_every_row_has_the_image_that_it_asked_for(server, tmp_path):
    batch = Batch(WORKFLOW, varied={"1.color": [5, 70_000, 16_777_215, 5]})
    report = run_batch(batch, [ComfyServer(server.url)], tmp_path)
    assert report.exit_code == 0, report.as_dict()
    assert colours(tmp_path) == {1: 5, 2: 70_000, 3: 16_777_215, 4: 5}
    sent = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    ids = [entry["prompt_id"] for entry in sent if entry["kind"] == "sending"]
    assert len(ids) == 4  # the server takes our ids: nothing was renamed, so a crash cannot queue twice
    assert not any(entry["kind"] == "renamed" for entry in sent)
    assert all(server.history(prompt_id)["status"]["completed"] for prompt_id in ids)


def test_what_the_server_refuses_is_reported_in_its_words(server, tmp_path):
    batch = Batch(WORKFLOW, varied={"1.width": [8, 0]})
    report = run_batch(batch, [ComfyServer(server.url)], tmp_path)
    (failed,) = report.failed
    assert report.exit_code == 1 and failed.row == 2
    assert "node 1 (EmptyImage)" in failed.error and "width" in failed.error


def test_an_error_on_the_way_is_reported_with_its_node(server, tmp_path):
    workflow = json.loads(json.dumps(WORKFLOW))
    workflow["1"] = {"class_type": "LoadImage", "inputs": {"image": "there-is-none.png"}}
    report = run_batch(Batch(workflow), [ComfyServer(server.url)], tmp_path)
    assert report.exit_code == 1 and "there-is-none.png" in report.failed[0].error


ROWS, AT = 200, 60


def test_a_server_killed_in_the_middle_and_started_again_loses_nothing(server, comfyui, tmp_path):
    (tmp_path / "base").mkdir()
    second, out = Server(*comfyui, tmp_path / "base"), tmp_path / "out"

    def accident():
        while len(list(out.glob("*.png"))) < AT:
            time.sleep(0.02)
        second.kill()
        second.start()

    try:
        second.wait_until_ready()
        thread = threading.Thread(target=accident, daemon=True)
        thread.start()
        batch = Batch(WORKFLOW, varied={"1.color": list(range(ROWS))})
        report = run_batch(batch, [ComfyServer(server.url), ComfyServer(second.url)], out)
        thread.join()
    finally:
        second.stop()
    assert report.exit_code == 0, report.as_dict()
    assert colours(out) == {row: row - 1 for row in range(1, ROWS + 1)}
    assert {result.server for result in report.results.values()} == {server.url, second.url}
    sent = [json.loads(line) for line in (out / "journal.jsonl").read_text().splitlines()]
    lost = [entry["row"] for entry in sent if entry["kind"] == "dropped"]
    # Nothing is sent twice but what the dead server took with it.
    assert len([entry for entry in sent if entry["kind"] == "sending"]) == ROWS + len(lost)
