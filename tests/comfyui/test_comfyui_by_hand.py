"""A first image as a newcomer makes it: nodes out of the search box, wires by mouse, a prompt typed, Run pressed."""

import numpy as np
import pytest
from comfy_hands import Hands

pytestmark = pytest.mark.comfyui

PROMPT = "a red apple"
# what is typed into the search box, the node that is picked of what it finds, where it is laid down (px of the window)
NODES = {
    "model": ("karlo", "Load unCLIP Model", (250, 130)),
    "text": ("unclip prompt", "CLIP Text Encode (unCLIP)", (690, 130)),
    "prior": ("dalle2", "Prior Sample (unCLIP)", (1130, 130)),
    "decoder": ("dall-e 2", "Decoder Sample (unCLIP)", (1570, 130)),
    "save": ("save image", "Save Image", (2010, 130)),
}
WIRES = [
    ("model", "clip", "text", "clip"), ("model", "prior", "prior", "prior"), ("text", "text", "prior", "text"),
    ("model", "decoder", "decoder", "decoder"), ("prior", "embedding", "decoder", "embedding"),
    ("decoder", "image", "save", "images"),
]  # fmt: skip
OUTPUTS = {"clip": 0, "prior": 1, "decoder": 2, "text": 0, "embedding": 0, "image": 0}

# what is typed -> those with unCLIP in their name that are found first, in this order
SEARCHES = {
    "unclip": ["unCLIPConditioning", "Load unCLIP Checkpoint",  # ComfyUI's own, which are used the most
               "Load unCLIP Model", "CLIP Text Encode (unCLIP)", "Prior Sample (unCLIP)", "Decoder Sample (unCLIP)",
               "Upscale (unCLIP)"],
    "img2img": ["Inpaint (unCLIP)", "CLIP Image Encode (unCLIP)", "Decoder Sample (unCLIP)",
                "Image Variations (unCLIP)", "Edit by Two Texts (unCLIP)"],
    "interpolate images": ["Embedding Pad (unCLIP)", "Blend Two Images (unCLIP)", "Embedding Interpolate (unCLIP)"],
    "variation": ["Image Variations (unCLIP)", "CLIP Image Encode (unCLIP)", "Decoder Sample (unCLIP)"],
    "edit": ["Edit by Two Texts (unCLIP)", "Inpaint (unCLIP)", "Text Diff (unCLIP)"],
    "merge": ["Embedding Blend (unCLIP)", "Blend Two Images (unCLIP)", "Embedding Interpolate (unCLIP)"],
    "blend images": ["Blend Two Images (unCLIP)", "Embedding Pad (unCLIP)", "Embedding Blend (unCLIP)"],
}  # fmt: skip

WIDE = {"width": 2600, "height": 1000}


@pytest.fixture(scope="module", params=["classic", "vue"])
def canvas(request, pages):
    """The page in a window in which five nodes stand side by side without moving the view."""
    return pages(request.param, WIDE)


def test_a_graph_made_by_hand_draws_what_was_typed(canvas, screenshots):
    hands = Hands(canvas)
    hands.begin()
    ids = {key: hands.add(*node) for key, node in NODES.items()}
    for source, output, target, entry in WIRES:
        hands.wire(ids[source], output, ids[target], entry)
    assert hands.wires() == {(ids[s], OUTPUTS[output], ids[t], entry) for s, output, t, entry in WIRES}
    hands.write(PROMPT)
    ending, details = hands.press_run()
    assert ending == "execution_success", details
    canvas.wait_for_image()
    canvas.screenshot(screenshots / f"by-hand-{'vue' if canvas.vue else 'classic'}.png")
    assert canvas.complaints() == []
    (image,) = canvas.server.images(details["prompt_id"])
    assert image.size == (64, 64) and PROMPT in image.text["prompt"]
    levels = np.asarray(image.convert("RGB"), dtype=np.float32)
    red, green, blue = levels[24:40, 24:40].mean((0, 1))
    assert red > 150 and green < 120 and blue < 120  # the apple
    assert levels[:6, :6].mean() > 200  # the background


def test_a_wire_between_sockets_of_two_kinds_does_not_hold(canvas):
    hands = Hands(canvas)
    hands.begin()
    model = hands.add(*NODES["model"])
    text = hands.add(*NODES["text"])
    hands.wire(model, "decoder", text, "clip")
    assert hands.wires() == set()
    hands.wire(model, "clip", text, "clip")
    assert hands.wires() == {(model, 0, text, "clip")}


def test_a_wire_of_an_embedding_let_go_offers_the_usual_nodes(canvas):
    """Where the list of nodes has been loaded anew, too: key R."""
    canvas.refresh()
    hands = Hands(canvas)
    hands.begin()
    prior = hands.add(*NODES["prior"])
    offered = hands.let_go(prior, "embedding", (1500, 600))
    usual = ["DecoderSample", "EmbeddingInterpolate", "EmbeddingBlend", "TextDiff", "Describe", "Inpaint"]
    assert [name.removeprefix("Unclip") for name in offered if name.startswith("Unclip")][:6] == usual
    canvas.page.keyboard.press("Escape")


@pytest.mark.parametrize("canvas", ["classic"], indirect=True)  # the search box is the same in both
def test_the_search_box_lists_first_what_a_first_image_needs(canvas):
    hands = Hands(canvas)
    hands.begin()
    found = {words: [name for name in hands.found(words) if "unCLIP" in name] for words in SEARCHES}
    assert {words: names[: len(SEARCHES[words])] for words, names in found.items()} == SEARCHES
    assert hands.found("unclip")[:7] == SEARCHES["unclip"]
