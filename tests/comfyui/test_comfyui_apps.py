"""The workflows that open as a form too, in ComfyUI's app mode: they open as a graph, and one runs."""

import json

import pytest
from comfy_hands import Hands
from comfy_server import ROOT

pytestmark = pytest.mark.comfyui

WORKFLOWS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (ROOT / "workflows").glob("*.json")}
APPS = {name: workflow for name, workflow in WORKFLOWS.items() if "linearData" in workflow["extra"]}
PROMPT = "a fox"


def shown(workflow):
    """What the form says of its inputs, from top to bottom."""
    fields = workflow["extra"]["linearData"]["inputs"]
    return [word for _, widget, more in fields for word in (widget, more["description"])]


@pytest.mark.parametrize("canvas", ["vue"], indirect=True)  # app mode turns the classic canvas off
def test_an_app_opens_as_a_graph_shows_its_inputs_and_runs(canvas, server, screenshots):
    hands = Hands(canvas)
    for name, workflow in sorted(APPS.items()):
        canvas.load(workflow, name)
        assert canvas.page.get_by_test_id("linear-widgets").count() == 0
        assert hands.show_app() == shown(workflow)
        canvas.screenshot(screenshots / f"app-{name}.png")
        if name == "text_to_image":
            ending, details = hands.run_app(PROMPT)
            canvas.screenshot(screenshots / f"app-{name}-run.png")
            assert ending == "execution_success", details
        hands.show_graph()
    assert canvas.complaints() == []
    row = server.history(details["prompt_id"])
    assert PROMPT in [node["inputs"].get("text") for node in row["prompt"][2].values()]
    (image,) = server.images(details["prompt_id"])
    assert image.size == (256, 256)
