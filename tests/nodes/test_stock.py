"""CLIPs of ComfyUI's own loaders, by stand-ins with their attributes; tests/comfyui runs the real classes."""

from types import SimpleNamespace

import pytest
import torch

from unclip.cli.headless.problems import InvalidWorkflow
from unclip.cli.headless.prompt import parse
from unclip.cli.headless.run import node_classes
from unclip.cli.headless.validate import plan
from unclip.nodes.inputs import InputError
from unclip.nodes.sockets import EmbeddingValue
from unclip.nodes.stock import UnclipStockClip, UnclipStockImageEncode, UnclipStockTextEncode
from unclip.nodes.stock_adapter import family_of, stock_clip

START, END = 1, 2


class Tower:
    """A text encoder of two numbers a token: the id, and 1; its embedding is the state of the first end of text."""

    special_tokens = {"start": START, "end": END, "pad": 0}

    def __init__(self, width, weight=None):
        weight = torch.arange(float(width * width)).view(width, width) if weight is None else weight
        self.transformer = SimpleNamespace(text_projection=SimpleNamespace(weight=weight))
        self.width, self.options, self.resets = width, {}, 0

    def reset_clip_options(self):
        self.options, self.resets = {}, self.resets + 1

    def set_clip_options(self, options):
        self.options = options

    def encode(self, rows):
        assert self.options["layer"] is None and self.options["projected_pooled"] is True
        ids = torch.tensor(rows).float()
        states = torch.stack([ids, torch.ones_like(ids)], dim=-1)
        pooled = torch.stack([states[i, row.index(END)] for i, row in enumerate(rows)])
        return states, torch.nn.functional.pad(pooled, (0, self.width - 2)), {"attention_mask": None}


class StockClip:
    """A CLIP with some towers; a word is the number of its letters plus 10, a row has six tokens."""

    def __init__(self, **towers):
        self.cond_stage_model = SimpleNamespace(**towers)
        self.patcher = SimpleNamespace(load_device=torch.device("cpu"))
        self.loads = 0

    def load_model(self):
        self.loads += 1

    def tokenize(self, text):
        words = [len(word) + 10 for word in text.split()]
        rows = [words[at : at + 4] for at in range(0, len(words), 4)] or [[]]
        padded = [[START, *row, END] + [0] * (4 - len(row)) for row in rows]
        return {
            name.removeprefix("clip_"): [[(token, 1.0) for token in row] for row in padded]
            for name in vars(self.cond_stage_model)
        }


class StockVision:
    """A CLIP_VISION whose embeddings repeat an image's mean."""

    image_size = 224

    def __init__(self, width, side=224):
        self.model = SimpleNamespace(visual_projection=SimpleNamespace(weight=torch.ones(width, 3)))
        self.width, self.image_size, self.crops = width, side, []

    def encode_image(self, image, crop=True):
        self.crops.append(crop)
        return SimpleNamespace(image_embeds=image.mean(dim=(1, 2, 3))[:, None].expand(-1, self.width).half())


def text_of(returned):
    return (returned["result"] if isinstance(returned, dict) else returned)[0]


@pytest.mark.parametrize(
    ("width", "side", "family"),
    [
        (768, 224, "karlo"), (1024, 224, "vit-h"), (1280, 224, "kandinsky22"), (512, 224, "clip-512"),
        (768, 336, "clip-768-336px"),
    ],
)  # fmt: skip
def test_the_width_and_the_kind_decide_the_family(width, side, family):
    assert family_of(width, side) == family


def test_auto_takes_the_tower_that_images_are_nearest_to_and_a_choice_the_chosen():
    clip = StockClip(clip_l=Tower(768), clip_g=Tower(1280))
    assert text_of(UnclipStockTextEncode().run(clip, "a cat")).family == "kandinsky22"
    assert text_of(UnclipStockTextEncode().run(clip, "a cat", "clip_l")).family == "karlo"
    with pytest.raises(InputError, match="This CLIP has no clip_h; it has clip_g, clip_l"):
        UnclipStockTextEncode().run(clip, "a cat", "clip_h")


def test_the_mask_ends_with_the_first_end_of_text_and_the_empty_prompt_comes_along():
    tower = Tower(1280)
    value = text_of(UnclipStockTextEncode().run(StockClip(clip_g=tower), "one three"))
    assert value.condition.mask.tolist() == [[True, True, True, True, False, False]]
    assert value.condition.null.mask.tolist() == [[True, True, False, False, False, False]]
    assert value.condition.states[0, :, 0].tolist() == [1, 13, 15, 2, 0, 0]
    assert value.prompts == ("one three",) and tower.options == {}  # nothing stays set for ComfyUI's own encoding


def test_what_is_cut_off_is_said():
    returned = UnclipStockTextEncode().run(StockClip(clip_g=Tower(1280)), "a b c d e f")
    assert returned["ui"]["warnings"] == ["The prompt is too long: the model reads its first 6 tokens only."]


@pytest.mark.parametrize(
    "projection",
    [
        SimpleNamespace(weight=torch.zeros(768, 768)), SimpleNamespace(weight=torch.full((768, 768), torch.nan)),
        SimpleNamespace(weight=torch.eye(768)), SimpleNamespace(weight=None), None,
    ],
)  # fmt: skip
def test_a_projection_that_no_file_held_is_refused(projection):
    tower = Tower(768)
    tower.transformer.text_projection = projection
    with pytest.raises(InputError, match="The clip_l of this CLIP has no text projection"):
        UnclipStockTextEncode().run(StockClip(clip_l=tower), "a cat")


def test_a_text_encoder_that_shares_no_space_with_images_is_refused():
    with pytest.raises(InputError, match="has none of the text encoders that share a space with images"):
        UnclipStockTextEncode().run(StockClip(t5xxl=Tower(4096)), "a cat")


def test_a_clip_l_that_tells_no_cat_from_an_airport_is_doubted():
    """By the stand-in's lengths of words 'a photo of a cat' is the same as any other prompt."""
    tower = Tower(768)
    returned = UnclipStockTextEncode().run(StockClip(clip_l=tower), "a cat")
    assert "'a photo of a cat' is nearer to 'an airport'" in returned["ui"]["warnings"][0]


@pytest.mark.parametrize(
    "vision", [SimpleNamespace(model=SimpleNamespace(visual_projection=torch.nn.Identity())), SimpleNamespace()]
)
def test_an_image_encoder_without_a_projection_is_refused(vision):
    with pytest.raises(InputError, match="has no visual projection, as of SigLIP, DINO"):
        UnclipStockImageEncode().run(vision, torch.zeros(1, 8, 8, 3))


def test_towers_of_two_clips_are_refused():
    with pytest.raises(InputError, match="those of clip_g 1280 and those of CLIP_VISION 1024"):
        UnclipStockClip().run(clip=StockClip(clip_g=Tower(1280)), clip_vision=StockVision(1024))
    with pytest.raises(InputError, match="Neither 'clip' nor 'clip_vision' is connected"):
        UnclipStockClip().run()


def test_what_is_not_connected_and_gradients_are_refused_in_words():
    texts = stock_clip(StockClip(clip_g=Tower(1280))).part.adapter
    images = stock_clip(clip_vision=StockVision(1280)).part.adapter
    with pytest.raises(ValueError, match="connect 'clip_vision' of its node too"):
        texts.encode_image(torch.zeros(1, 8, 8, 3))
    with pytest.raises(ValueError, match="connect 'clip' of its node too"):
        images.encode_text(["a cat"])
    with pytest.raises(InputError, match="passes no gradients"):
        images.encode_pixels(torch.zeros(1, 3, 224, 224))


def test_a_list_output_is_no_hindrance_headless_unless_it_is_used():
    encode = {"class_type": "UnclipLoadEmbedding", "inputs": {"file": "a.safetensors"}}
    out = {"class_type": "UnclipToClipVision", "inputs": {"embedding": ["1", 0]}}
    classes = node_classes() | {"Takes": _Takes, "UnclipLoadEmbedding": _Gives}
    taken = {"class_type": "Takes", "inputs": {"output": ["2", 0]}}
    prompt = {"1": encode | {"inputs": {}}, "2": out, "3": taken}
    assert len(plan(parse(prompt)[0], classes, {}, [])) == 3
    taken["inputs"]["output"] = ["2", 1]
    with pytest.raises(InvalidWorkflow, match="as a list, which only ComfyUI itself can pass"):
        plan(parse(prompt)[0], classes, {}, [])


class _Gives:
    RETURN_TYPES, FUNCTION = ("UNCLIP_EMBEDDING",), "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def run(self):
        return (EmbeddingValue(torch.ones(2, 768), "karlo", "image"),)


class _Takes:
    RETURN_TYPES, FUNCTION, OUTPUT_NODE = (), "run", True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"output": ("CLIP_VISION_OUTPUT",)}}

    def run(self, output):
        return ()
