"""Embedding Pad and Pick on the canvas, classic and Vue, with a real mouse."""

import pytest

pytestmark = pytest.mark.comfyui

LOAD_API = "async ([prompt, name]) => { await app.loadApiJson(prompt, name) }"
WIDGETS = (
    "(type) => Object.fromEntries(app.graph.nodes.find((n) => n.type === type).widgets.map((w) => [w.name, w.value]))"
)
QUEUED = """() => {
    window.queued = []
    const post = app.api.queuePrompt
    app.api.queuePrompt = async (...given) => {
        const answer = await post.apply(app.api, given)
        window.queued.push(answer.prompt_id)
        return answer
    }
    window.giveBack = () => { app.api.queuePrompt = post }
}"""
CORNERS = {"red": (0, 0), "blue": (1, 0), "green": (0, 1), "yellow": (1, 1)}
STEPS = 2
PAUSE, WAITS = 300, 100  # ms, and how often: a busy machine takes seconds for a run


def model_and_prior(*texts, **prior):
    """Load unCLIP Model as node 1; for each text its encoding 10… and its embedding 20…"""
    prompt = {"1": {"class_type": "UnclipLoadModel", "inputs": {"model": "bundled (tiny)", "dtype": "auto"}}}
    for i, text in enumerate(texts):
        prompt[str(10 + i)] = {"class_type": "UnclipTextEncode", "inputs": {"clip": ["1", 0], "text": text}}
        inputs = {"prior": ["1", 1], "text": [str(10 + i), 0], "seed": 1, "steps": STEPS, "candidates": 1, "keep": 1}
        prompt[str(20 + i)] = {"class_type": "UnclipPriorSample", "inputs": inputs | prior}
    return prompt


def decoder(embedding, seed=1):
    inputs = {"decoder": ["1", 2], "embedding": embedding, "seed": seed, "steps": STEPS}
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


def test_dragging_the_pad_moves_its_numbers_and_draws_what_hangs_on_it(canvas, screenshots):
    page = canvas.page
    open_api(canvas, pad_workflow(), "pad")
    page.evaluate(QUEUED)
    box = page.locator(".unclip-pad").bounding_box()
    at = lambda x, y: (box["x"] + x * box["width"], box["y"] + y * box["height"])  # noqa: E731
    canvas.screenshot(screenshots / f"pad-{mode(canvas)}-before.png")
    page.mouse.move(*at(0.5, 0.5))
    page.mouse.down()
    page.mouse.move(*at(0.9, 0.2), steps=8)
    page.wait_for_function("window.queued.length > 0")  # while the button is held
    page.mouse.move(*at(0.1, 0.8), steps=8)
    page.mouse.up()
    values = page.evaluate(WIDGETS, "UnclipEmbeddingPad")
    assert (values["x"], values["y"]) == (pytest.approx(0.1, abs=0.03), pytest.approx(0.8, abs=0.03))
    last = last_run(canvas, values["x"], values["y"])
    canvas.screenshot(screenshots / f"pad-{mode(canvas)}-after.png")
    page.evaluate("window.giveBack()")
    assert "32" in last["outputs"] and "41" not in last["outputs"]
    assert last["prompt"][3]["preview_method"] == "auto"  # the image is seen before it is done
    assert len(page.evaluate("window.queued")) < 16  # not one for each move: the next when the last is done
    widgets = [w for w in page.evaluate("app.graph.serialize().nodes") if w["type"] == "UnclipEmbeddingPad"]
    assert list(widgets[0]["widgets_values"]) == [values["x"], values["y"]]
    assert canvas.complaints() == []


def last_run(canvas, x, y):
    """The history's row of the last prompt that the pad has queued, once that is of this point."""
    for _ in range(WAITS):
        row = canvas.server.history(canvas.page.evaluate("window.queued.at(-1)"))
        queued = row["prompt"][2]["30"]["inputs"]
        if (queued["x"], queued["y"]) == (x, y):
            return row
        canvas.page.wait_for_timeout(PAUSE)
    raise AssertionError(f"the last run is of {queued}, not of ({x}, {y}), where the mouse was let go")


def test_the_pad_without_a_run_below_it_only_moves(canvas):
    page = canvas.page
    open_api(canvas, {key: node for key, node in pad_workflow().items() if int(key) < 31}, "pad alone")
    page.evaluate(QUEUED)
    box = page.locator(".unclip-pad").bounding_box()
    page.mouse.click(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.75)
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
    assert canvas.complaints() == []


def picked(tiles):
    pressed = [tile.get_attribute("aria-pressed") for tile in tiles.all()]
    return [index for index, value in enumerate(pressed) if value == "true"]
