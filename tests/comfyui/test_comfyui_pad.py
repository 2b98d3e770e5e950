"""Embedding Pad and Pick on the canvas, classic and Vue, with a real mouse."""

import pytest
from comfy_hands import EMPTY_SPOT

pytestmark = pytest.mark.comfyui

LOAD_API = "async ([prompt, name]) => { await app.loadApiJson(prompt, name) }"
WIDGETS = (
    "(type) => Object.fromEntries(app.graph.nodes.find((n) => n.type === type).widgets.map((w) => [w.name, w.value]))"
)
QUEUED = """() => {
    window.queued = []
    const post = app.api.queuePrompt
    const ended = ({ type, detail }) => {
        for (const run of window.queued) if (run.id === detail.prompt_id) run.how = type
    }
    const ends = ['execution_success', 'execution_error', 'execution_interrupted']
    for (const name of ends) app.api.addEventListener(name, ended)
    app.api.queuePrompt = async (...given) => {
        const answer = await post.apply(app.api, given)
        const [, { output }, options] = given
        const { x, y } = output['30'].inputs
        window.queued.push({ id: answer.prompt_id, at: [x, y], steps: output['31'].inputs.steps,
                             text: output['10'].inputs.text, preview: options.previewMethod, how: null })
        return answer
    }
    window.giveBack = () => {
        app.api.queuePrompt = post
        for (const name of ends) app.api.removeEventListener(name, ended)
    }
}"""
# In place of the server: every run takes so many ms, and is what `runs` tells
PRETENDED = """(ms) => {
    window.runs = []
    window.forgotten = []
    const { queuePrompt, interrupt, deleteItem, fetchApi } = app.api
    const end = (run, how) => {
        if (run.how) return
        run.how = how
        app.api.dispatchCustomEvent(`execution_${how}`, { prompt_id: run.id, timestamp: 0 })
    }
    app.api.queuePrompt = async (number, { output }, options) => {
        const { class_type: saver } = output['33']
        const run = { id: `run-${window.runs.length}`, at: [output['30'].inputs.x, output['30'].inputs.y],
                      steps: output['31'].inputs.steps, saver, enlarger: output['34'].class_type,
                      outputs: options.partialExecutionTargets, preview: options.previewMethod, how: null }
        window.runs.push(run)
        setTimeout(() => end(run, 'success'), ms)
        return { prompt_id: run.id }
    }
    app.api.interrupt = async (id) => end(window.runs.find((run) => run.id === id), 'interrupted')
    app.api.deleteItem = async () => {}
    app.api.fetchApi = async (route, options) => {
        if (route !== '/history' || !options?.body) return fetchApi.call(app.api, route, options)
        window.forgotten.push(...JSON.parse(options.body).delete)
    }
    window.giveBack = () => Object.assign(app.api, { queuePrompt, interrupt, deleteItem, fetchApi })
}"""
CORNERS = {"red": (0, 0), "blue": (1, 0), "green": (0, 1), "yellow": (1, 1)}
STEPS, DRAFT = 5, 3
LIMIT = 120_000  # ms: a busy machine takes seconds for a run


def model_and_prior(*texts, **prior):
    """Load unCLIP Model as node 1; for each text its encoding 10… and its embedding 20…"""
    prompt = {"1": {"class_type": "UnclipLoadModel", "inputs": {"model": "bundled (tiny)", "dtype": "auto"}}}
    for i, text in enumerate(texts):
        prompt[str(10 + i)] = {"class_type": "UnclipTextEncode", "inputs": {"clip": ["1", 0], "text": text}}
        inputs = {"prior": ["1", 1], "text": [str(10 + i), 0], "seed": 1, "steps": STEPS, "candidates": 1, "keep": 1}
        prompt[str(20 + i)] = {"class_type": "UnclipPriorSample", "inputs": inputs | prior}
    return prompt


def decoder(embedding, seed=1, steps=STEPS):
    inputs = {"decoder": ["1", 2], "embedding": embedding, "seed": seed, "steps": steps}
    return {"class_type": "UnclipDecoderSample", "inputs": inputs}


def pad_workflow():
    prompt = model_and_prior(*(f"a large {colour} circle in the center" for colour in CORNERS))
    corners = {f"embedding_{i + 1}": [str(20 + i), 0] for i in range(len(CORNERS))}
    return prompt | {
        "30": {"class_type": "UnclipEmbeddingPad", "inputs": {**corners, "x": 0.5, "y": 0.5}},
        "31": decoder(["30", 0]),
        "32": {"class_type": "PreviewImage", "inputs": {"images": ["31", 0]}},
        "40": decoder(["20", 0], seed=77),  # beside the pad: does not run with it
        "41": {"class_type": "PreviewImage", "inputs": {"images": ["40", 0]}},
    }


def open_api(canvas, prompt, name):
    canvas.page.evaluate(LOAD_API, [prompt, name])
    canvas.fit()
    assert canvas.complaints() == []


def mode(canvas):
    return "vue" if canvas.vue else "classic"


class Pad:
    """The pad under the mouse."""

    def __init__(self, page):
        self.mouse, self.box = page.mouse, page.locator(".unclip-pad").bounding_box()

    def move(self, x, y, steps=1):
        box = self.box
        self.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=steps)

    def press(self, x, y):
        self.move(x, y)
        self.mouse.down()


def test_dragging_the_pad_moves_its_numbers_and_draws_what_hangs_on_it(canvas, screenshots):
    page, prompt = canvas.page, pad_workflow()
    prompt["10"]["inputs"]["text"] = "a large {red|green|blue|yellow|orange|purple|pink|grey} circle in the center"
    open_api(canvas, prompt, "pad")
    page.evaluate(QUEUED)
    pad = Pad(page)
    canvas.screenshot(screenshots / f"pad-{mode(canvas)}-before.png")
    pad.press(0.5, 0.5)
    pad.move(0.9, 0.2, steps=8)
    page.wait_for_function("window.queued.length > 0")  # while the button is held
    pad.move(0.1, 0.8, steps=8)
    pad.mouse.up()
    values = page.evaluate(WIDGETS, "UnclipEmbeddingPad")
    at = [values["x"], values["y"]]
    assert at == [pytest.approx(0.1, abs=0.03), pytest.approx(0.8, abs=0.03)]
    page.wait_for_function(f"window.queued.at(-1).steps === {STEPS} && window.queued.at(-1).how", timeout=LIMIT)
    canvas.screenshot(screenshots / f"pad-{mode(canvas)}-after.png")
    page.evaluate("window.giveBack()")
    runs = page.evaluate("window.queued")
    assert runs[-1]["at"] == at and runs[-1]["how"] == "execution_success"
    drafts = [run for run in runs[:-1] if run["steps"] == DRAFT]
    assert drafts[-1]["at"] == at and drafts[-1]["how"] == "execution_success"
    assert runs[0]["preview"] == "auto"  # the image is seen before it is done
    assert len({run["text"] for run in runs}) == 1 and "{" not in runs[0]["text"]  # not drawn anew with each move
    assert len(runs) < 16  # not one for each move: the next when the last is done
    last = canvas.server.history(runs[-1]["id"])
    assert "32" in last["outputs"] and "41" not in last["outputs"]
    page.wait_for_timeout(500)
    assert not set(canvas.server.get("/history")) & {run["id"] for run in drafts}  # what was made stays, and no drafts
    widgets = [w for w in page.evaluate("app.graph.serialize().nodes") if w["type"] == "UnclipEmbeddingPad"]
    assert list(widgets[0]["widgets_values"]) == at
    assert canvas.complaints() == []


OUTPUTS = "() => app.extensionManager.workflow.activeWorkflow.changeTracker.nodeOutputs ?? {}"
RESTORED = """([type, name, value]) => app.graph.nodes.find((node) => node.type === type).widgets.find(
    (widget) => widget.name === name).value === value
    && !app.extensionManager.workflow.activeWorkflow.changeTracker._restoringState"""


def shortcut(page, key):
    """Press Ctrl and a key as slowly as a hand: the page acts on a key in the next frame, and when one is let go."""
    page.keyboard.down("ControlOrMeta")
    page.keyboard.press(key, delay=200)  # ms
    page.keyboard.up("ControlOrMeta")


def test_undo_takes_back_a_drag_of_the_pad_alone_and_redo_brings_it_back(canvas):
    page = canvas.page
    open_api(canvas, pad_workflow(), "pad undone")
    page.evaluate(QUEUED)
    page.evaluate("app.graph.nodes.find((node) => node.id == 40).title = 'changed before'")
    page.mouse.click(*EMPTY_SPOT)  # at which the page looks for changes
    page.wait_for_timeout(200)  # what changes within 50 ms it takes for the same change
    pad = Pad(page)
    pad.press(0.5, 0.5)
    pad.move(0.7, 0.3)
    pad.move(0.9, 0.2)
    pad.mouse.up()
    dragged = page.evaluate(WIDGETS, "UnclipEmbeddingPad")
    page.wait_for_function(f"window.queued.at(-1)?.steps === {STEPS} && window.queued.at(-1).how", timeout=LIMIT)
    page.evaluate("window.giveBack()")
    last = page.evaluate("window.queued.at(-1)")
    assert last["how"] == "execution_success"
    shown = canvas.server.history(last["id"])["outputs"]["32"]["images"]
    assert page.evaluate(OUTPUTS)["32"]["images"] == shown  # the run was kept as one of this workflow
    shortcut(page, "z")
    page.wait_for_function(RESTORED, arg=["UnclipEmbeddingPad", "x", 0.5])
    values = page.evaluate(WIDGETS, "UnclipEmbeddingPad")
    assert (values["x"], values["y"]) == (0.5, 0.5)
    assert page.evaluate("app.graph.nodes.find((node) => node.id == 40).title") == "changed before"
    shortcut(page, "y")
    page.wait_for_function(RESTORED, arg=["UnclipEmbeddingPad", "x", dragged["x"]])
    assert page.evaluate(WIDGETS, "UnclipEmbeddingPad")["y"] == dragged["y"]
    assert canvas.complaints() == []


def saving_pad_workflow():
    """The pad's image enlarged and saved; its embedding saved too."""
    return pad_workflow() | {
        "31": decoder(["30", 0], steps=0),  # the model's own
        "34": {"class_type": "UnclipUpscale", "inputs": {"upscaler": ["1", 3], "image": ["31", 0], "seed": 1}},
        "33": {"class_type": "SaveImage", "inputs": {"images": ["34", 0], "filename_prefix": "pad"}},
        "35": {"class_type": "UnclipSaveEmbedding", "inputs": {"embedding": ["30", 0], "filename_prefix": "pad"}},
    }


@pytest.fixture
def pretended(canvas):
    """Opens a pad whose runs take so many ms, and does it again."""

    def pad(ms):
        open_api(canvas, saving_pad_workflow(), "pad")
        canvas.page.evaluate(PRETENDED, ms)
        return Pad(canvas.page)

    yield pad
    canvas.page.evaluate("window.giveBack()")
    assert canvas.complaints() == []


WHOLE = "window.runs.at(-1).steps === 0 && window.runs.at(-1).how"


def test_a_hand_on_the_pad_gets_drafts_and_at_rest_all_of_it_once(canvas, pretended):
    page, pad = canvas.page, pretended(100)
    pad.press(0.3, 0.3)
    for i in range(6):
        pad.move(0.4 + i / 20, 0.4)
        page.wait_for_function(f"window.runs.length > {i} && window.runs[{i}].how")
    page.wait_for_function(WHOLE)  # the button is still held
    pad.mouse.up()
    page.wait_for_timeout(500)
    runs = page.evaluate("window.runs")
    drafts, whole = [run for run in runs if run["steps"]], runs[-1]  # on a busy machine the hand seems to rest between
    assert len(drafts) >= 6 and {run["steps"] for run in drafts} == {DRAFT} and whole["steps"] == 0
    assert {run["saver"] for run in drafts} == {"PreviewImage"} and whole["saver"] == "SaveImage"
    assert {run["enlarger"] for run in drafts} == {"ImageScaleBy"} and whole["enlarger"] == "UnclipUpscale"
    assert {tuple(sorted(run["outputs"])) for run in drafts} == {("32", "33")}
    assert sorted(whole["outputs"]) == ["32", "33", "35"]
    assert whole["at"] == drafts[-1]["at"] == [pytest.approx(0.65, abs=0.02), pytest.approx(0.4, abs=0.02)]
    assert {run["how"] for run in (*drafts, whole)} == {"success"}
    passed = sorted(run["id"] for run in runs if run["steps"] or run["how"] == "interrupted")
    assert drafts[0]["preview"] == "auto"
    assert {run["preview"] for run in (*drafts[1:], whole)} == {"none"}  # there as fast: a preview would but flicker
    assert sorted(page.evaluate("window.forgotten")) == passed


def test_a_whole_run_stops_once_the_hand_moves_on(canvas, pretended):
    page, pad = canvas.page, pretended(900)
    pad.press(0.3, 0.3)
    page.wait_for_function("window.runs.at(-1)?.steps === 0")
    pad.move(0.6, 0.3)
    pad.mouse.up()
    page.wait_for_function(f"window.runs.length > 3 && {WHOLE}")
    runs = page.evaluate("window.runs")
    assert [(run["steps"], run["how"]) for run in runs] == [
        (DRAFT, "success"), (0, "interrupted"), (DRAFT, "success"), (0, "success")
    ]  # fmt: skip
    page.wait_for_function("window.forgotten.length > 2")
    assert sorted(page.evaluate("window.forgotten")) == [run["id"] for run in runs[:3]]


WORKFLOWS = """(id) => {
    const { $pinia } = document.getElementById('vue-app').__vue_app__.config.globalProperties
    const of = $pinia._s.get('execution').queuedJobs[id]?.workflow?.path
    return [of, app.extensionManager.workflow.activeWorkflow.path]
}"""


def test_a_draft_that_takes_long_makes_way_for_a_newer_one(canvas, pretended):
    page, pad = canvas.page, pretended(8000)
    pad.press(0.3, 0.3)
    page.wait_for_function("window.runs.length === 1")
    pad.move(0.4, 0.3)
    assert page.evaluate("window.runs[0].how") is None  # it may soon be there
    of, opened = page.evaluate(WORKFLOWS, "run-0")
    assert of == opened and of  # so that its words and images go to no other tab
    page.wait_for_timeout(3100)
    pad.move(0.5, 0.3)
    pad.mouse.up()
    page.wait_for_function("window.runs.length === 2")
    first, second = page.evaluate("window.runs")
    assert (first["how"], second["how"]) == ("interrupted", None) and second["at"][0] == pytest.approx(0.5, abs=0.02)
    page.evaluate("app.api.dispatchCustomEvent('execution_interrupted', { prompt_id: 'run-1', timestamp: 0 })")


def test_the_pad_without_a_run_below_it_only_moves(canvas):
    page = canvas.page
    open_api(canvas, {key: node for key, node in pad_workflow().items() if int(key) < 31}, "pad alone")
    page.evaluate(QUEUED)
    pad = Pad(page)
    pad.press(0.25, 0.75)
    pad.mouse.up()
    page.wait_for_timeout(500)
    values = page.evaluate(WIDGETS, "UnclipEmbeddingPad")
    assert (values["x"], values["y"]) == (pytest.approx(0.25, abs=0.03), pytest.approx(0.75, abs=0.03))
    assert page.evaluate("window.queued") == []
    page.evaluate("window.giveBack()")


def test_clicked_candidates_are_those_that_go_on(canvas, screenshots):
    page = canvas.page
    prompt = model_and_prior("a large red circle in the center", candidates=4, keep=4, seed=5 + canvas.vue)
    prompt |= {
        "30": decoder(["20", 0]),
        "31": {"class_type": "UnclipPick", "inputs": {"indices": "0", "image": ["30", 0], "embedding": ["20", 0]}},
        "32": {"class_type": "PreviewImage", "inputs": {"images": ["31", 0]}},
    }
    open_api(canvas, prompt, "pick")
    page.evaluate("app.rootGraph.id = crypto.randomUUID()")  # one of the API format has none until it is loaded anew
    ending, details = canvas.run()
    assert ending == "execution_success", details
    tiles = page.locator(".unclip-pick button")
    tiles.nth(3).wait_for()
    canvas.fit()
    assert tiles.count() == 4 and picked(tiles) == [0]
    tiles.nth(2).click()
    assert page.evaluate(WIDGETS, "UnclipPick")["indices"] == "2" and picked(tiles) == [2]
    tiles.nth(0).click(modifiers=["Control"])
    canvas.screenshot(screenshots / f"pick-{mode(canvas)}.png")
    assert page.evaluate(WIDGETS, "UnclipPick")["indices"] == "2,0" and picked(tiles) == [0, 2]
    ending, details = canvas.run()
    assert ending == "execution_success", details
    row = canvas.server.history(details["prompt_id"])
    assert row["prompt"][2]["31"]["inputs"]["indices"] == "2,0"
    assert len(row["outputs"]["32"]["images"]) == 2
    tiles.nth(0).click(modifiers=["Control"])
    tiles.nth(2).click(modifiers=["Control"])  # the last one stays
    assert page.evaluate(WIDGETS, "UnclipPick")["indices"] == "2"
    tiles.nth(1).click()
    shortcut(page, "z")
    page.wait_for_function(RESTORED, arg=["UnclipPick", "indices", "2"])
    shortcut(page, "y")
    page.wait_for_function(RESTORED, arg=["UnclipPick", "indices", "1"])
    page.wait_for_timeout(1500)  # the page keeps its workflow a moment after a change
    page.reload()
    canvas.wait_until_ready()
    tiles.nth(3).wait_for()  # the same candidates, though another was picked when they were queued
    assert picked(tiles) == [1]
    assert canvas.complaints() == []


def picked(tiles):
    pressed = [tile.get_attribute("aria-pressed") for tile in tiles.all()]
    return [index for index, value in enumerate(pressed) if value == "true"]
