"""What the pack's own script adds to the canvas, classic and Vue: a colour for each socket, and what nodes say."""

import json

import pytest
from comfy_server import ROOT

from unclip.nodes import sockets

pytestmark = pytest.mark.comfyui

OURS = sorted(value for name, value in vars(sockets).items() if name.isupper() and str(value).startswith("UNCLIP_"))
WELL, WARNED = "The model reads the whole prompt.", "'zorbel'"
PALETTE = "(name) => app.extensionManager.setting.set('Comfy.ColorPalette', name)"
CLASSIC_COLOURS = """(types) => types.map((type) => [
    LGraphCanvas.link_type_colors[type], app.canvas.default_connection_color_byType[type],
])"""
SLOT_COLOURS = """() => app.graph.nodes.flatMap((node) => (node.outputs ?? []).flatMap((slot, index) => {
    const dot = document.querySelector(`[data-slot-key="${node.id}-out-${index}"]`)
    const painted = [dot, ...(dot?.querySelectorAll('*') ?? [])].map((e) => e && getComputedStyle(e).backgroundColor)
    return [[slot.type, painted.find((colour) => colour && colour !== 'rgba(0, 0, 0, 0)') ?? '']]
}))"""
WORDS = """(type) => app.graph.nodes.filter((node) => node.type === type).map((node) => {
    const element = node.widgets.find((widget) => widget.name === 'unclip_words')?.element
    return element?.isConnected && element.getBoundingClientRect().height > 10 ? element.innerText.trim() : ''
})[0]"""
SAYS = f"([type, words]) => (({WORDS})(type) ?? '').includes(words)"
SET_TEXT = """([type, text]) => {
    const node = app.graph.nodes.find((node) => node.type === type)
    node.widgets.find((widget) => widget.name === 'text').value = text
}"""
SEED = "(seed) => app.graph.nodes.find((node) => node.type === 'UnclipDecoderSample').widgets[0].value = seed"

LATE = """async () => {
    const node = app.graph.nodes.find((node) => node.type === 'UnclipDecoderSample')
    const paper = new OffscreenCanvas(512, 512)
    paper.getContext('2d').fillRect(0, 0, 512, 512)
    const blob = await paper.convertToBlob({ type: 'image/jpeg' })
    const names = { nodeId: String(node.id), displayNodeId: String(node.id), jobId: 'late' }
    app.api.dispatchCustomEvent('executing', String(node.id))
    app.api.dispatchCustomEvent('b_preview_with_metadata', { blob, ...names })
    app.canvas.draw(true, true) // begins to load it
    node.onExecuted({ text: ['8 steps'] })
}"""
# What an undo, or another tab and back, does while the node runs anew
BROUGHT_BACK = """async () => {
    const id = String(app.graph.nodes.find((node) => node.type === 'UnclipDecoderSample').id)
    const paper = new OffscreenCanvas(512, 512)
    paper.getContext('2d').fillRect(0, 0, 512, 512)
    const blob = await paper.convertToBlob({ type: 'image/jpeg' })
    const names = { nodeId: id, displayNodeId: id, node_id: id, display_node_id: id, jobId: 'anew', prompt_id: 'anew' }
    app.api.dispatchCustomEvent('execution_start', { prompt_id: 'anew', timestamp: 0 })
    const state = { ...names, state: 'running', value: 1, max: 8 }
    app.api.dispatchCustomEvent('progress_state', { prompt_id: 'anew', nodes: { [id]: state } })
    app.api.dispatchCustomEvent('executing', id)
    const { nodeOutputs } = app
    app.nodeOutputs = { ...nodeOutputs, [id]: { text: ['words of the run before'] } }
    app.api.dispatchCustomEvent('b_preview_with_metadata', { blob, ...names })
    window.giveBack = () => {
        app.nodeOutputs = nodeOutputs
        app.api.dispatchCustomEvent('execution_interrupted', { prompt_id: 'anew', timestamp: 0 })
        app.api.dispatchCustomEvent('executing', null)
    }
}"""
PREVIEWS = """() => {
    app.canvas.draw(true, true)
    const node = app.graph.nodes.find((node) => node.type === 'UnclipDecoderSample')
    const drawn = document.querySelectorAll(`[data-node-id="${node.id}"] img`).length
    return [drawn, node.widgets.filter(({ name }) => name === '$$canvas-image-preview').length]
}"""


def workflow(text):
    """Text to image in few steps: what the nodes say is the same."""
    graph = json.loads((ROOT / "workflows" / "text_to_image.json").read_text(encoding="utf-8"))
    for node in graph["nodes"]:
        if node["type"] == "UnclipTextEncode":
            node["widgets_values"][0] = text
        if node["type"] in ("UnclipPriorSample", "UnclipDecoderSample", "UnclipUpscale"):
            node["widgets_values"][:3] = [0, "fixed", 2]
    return graph


def rgb(colour):
    return f"rgb({', '.join(str(int(colour[i : i + 2], 16)) for i in (1, 3, 5))})"


@pytest.mark.parametrize("palette", ["light", "dark"])
def test_every_socket_has_a_colour_of_its_own_in_every_palette(canvas, screenshots, palette):
    canvas.load(workflow("a red circle"), "colours")
    canvas.page.evaluate(PALETTE, palette)
    canvas.page.wait_for_timeout(300)
    canvas.screenshot(screenshots / f"colours-{palette}-{'vue' if canvas.vue else 'classic'}.png")
    found = canvas.page.evaluate(CLASSIC_COLOURS, OURS)
    assert len(OURS) == 8 and all(link == slot for link, slot in found)
    colours = dict(zip(OURS, (link for link, _ in found), strict=True))
    stock = canvas.page.evaluate("Object.entries(LGraphCanvas.link_type_colors)")
    others = {colour.upper() for kind, colour in stock if colour and kind not in OURS}
    assert len(set(colours.values())) == len(OURS) and not others & {colour.upper() for colour in colours.values()}
    if canvas.vue:
        dots = {kind: colour for kind, colour in canvas.page.evaluate(SLOT_COLOURS) if kind in OURS}
        assert len(dots) >= 6 and dots == {kind: rgb(colours[kind]) for kind in dots}


def test_a_palette_may_name_another_colour_for_a_socket(canvas):
    set_to = "(value) => { LGraphCanvas.link_type_colors.UNCLIP_TEXT = value }"
    was = canvas.page.evaluate("LGraphCanvas.link_type_colors.UNCLIP_TEXT")
    canvas.page.evaluate(set_to, "#010203")
    assert canvas.page.evaluate("LGraphCanvas.link_type_colors.UNCLIP_TEXT") == "#010203"
    canvas.page.evaluate(set_to, "")
    assert canvas.page.evaluate("LGraphCanvas.link_type_colors.UNCLIP_TEXT") == was


def test_a_node_says_its_warning_after_a_run_from_the_cache_and_after_a_reload(canvas, screenshots):
    page, mode = canvas.page, "vue" if canvas.vue else "classic"
    canvas.load(workflow(f"a red zorbel, {mode}"), "words")
    for seed in (1, 2):  # the second run takes the text from the cache
        page.evaluate(SEED, seed)
        assert canvas.run()[0] == "execution_success"
        page.wait_for_function(SAYS, arg=["UnclipTextEncode", WARNED])
    page.wait_for_function(SAYS, arg=["UnclipDecoderSample", "steps"])
    canvas.fit()
    canvas.screenshot(screenshots / f"words-{mode}.png")
    saved = page.evaluate("JSON.stringify(app.graph.serialize())")
    assert "zorbel' " not in saved and "unclip_words" not in saved
    page.wait_for_timeout(1500)  # the page keeps its workflow a moment after a change
    page.reload()
    canvas.wait_until_ready()
    page.wait_for_function(SAYS, arg=["UnclipTextEncode", WARNED])
    page.wait_for_function(SAYS, arg=["UnclipPriorSample", "#1"])
    page.evaluate(SET_TEXT, ["UnclipTextEncode", "a red apple"])
    assert canvas.run()[0] == "execution_success"
    page.wait_for_function(SAYS, arg=["UnclipTextEncode", WELL])
    assert WARNED not in page.evaluate(WORDS, "UnclipTextEncode")
    assert canvas.complaints() == []


def test_a_preview_that_is_loaded_late_does_not_come_back_behind_the_words(canvas):
    canvas.load(workflow("a red circle"), "late")
    canvas.page.evaluate(LATE)
    canvas.page.wait_for_timeout(700)
    assert canvas.page.evaluate(PREVIEWS) == [0, 0]
    canvas.show_previews()  # the next run's is shown
    assert sum(canvas.page.evaluate(PREVIEWS)) == 1


def test_what_comes_back_of_a_run_before_leaves_a_node_that_runs_its_preview(canvas):
    canvas.load(workflow("a red circle"), "brought back")
    canvas.page.evaluate(BROUGHT_BACK)
    canvas.page.wait_for_function(f"({PREVIEWS})().some(Boolean)", polling=100)
    assert not canvas.page.evaluate(WORDS, "UnclipDecoderSample")
    canvas.page.evaluate("window.giveBack()")


@pytest.mark.parametrize("changed", [{"id": "11111111-2222-4333-8444-555555555555"}, {}], ids=["id", "prompt"])
def test_what_stands_otherwise_now_shows_nothing_of_an_earlier_run(canvas, changed):
    """Another workflow, and a node that another prompt leads to by now."""
    text = "a large red circle in the center" if changed else "a small blue star"
    canvas.load(workflow(text) | changed, "another")
    canvas.page.wait_for_timeout(1000)
    assert not canvas.page.evaluate(WORDS, "UnclipTextEncode")
    assert not canvas.page.evaluate(WORDS, "UnclipPriorSample")
