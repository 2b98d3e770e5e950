"""Kandinsky 2.2's prior folder against diffusers' own prior pipelines, on small random models."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...clip.tokenizer import END, ClipTokenizer, byte_vocabulary, write_tokenizer
from ...diffusion.noise import BatchNoise
from ...embedding.arithmetic import weighted_sum
from ...families.loading import load_model
from ...models import UnclipModel
from ...pipelines import encode_image, encode_text, sample_prior, sample_prior_pair
from . import oracle
from .runs import EMBEDS, FORWARD, PROMPTS, Row, compare, pictures

SHAPES = tuple(
    replace(shape, activation="gelu", name=f"Kandinsky's prior, {shape.name}") for shape in oracle.SHAPES[:2]
)
NEGATIVES = ("a blue hat", "")
GUIDANCE = 4.0


@dataclass(frozen=True)
class PriorPair:
    """diffusers' components, and the folder that its pipeline wrote of them."""

    shape: oracle.Shape
    parts: dict[str, Any]
    folder: Path

    def model(self, conventions: str = "diffusers") -> UnclipModel:
        """Load our model from the folder."""
        return load_model(self.folder, conventions=conventions)


def make_pair(shape: oracle.Shape, folder: Path, seed: int = 0) -> PriorPair:
    """Build the reference and let diffusers save its pipeline in `folder`, the tokenizer as it was published."""
    parts = components(shape, folder.with_name(f"{folder.name}-tokenizer"), seed)
    pipeline(parts).save_pretrained(folder)
    for path in (folder / "tokenizer").iterdir():
        path.unlink()
    write_tokenizer(_tokenizer(shape), folder / "tokenizer")
    return PriorPair(shape, parts, folder)


def components(shape: oracle.Shape, tokenizer: Path, seed: int = 0) -> dict[str, Any]:
    """diffusers' components of that shape, random; the folder `tokenizer` takes the tokenizer's files."""
    from diffusers import UnCLIPScheduler
    from transformers import CLIPImageProcessor, CLIPTextModelWithProjection, CLIPTokenizer
    from transformers import CLIPVisionModelWithProjection as Vision

    write_tokenizer(_tokenizer(shape), tokenizer)
    nets = {
        "text_encoder": CLIPTextModelWithProjection(oracle.text_config(shape)),
        "image_encoder": Vision(oracle.vision_config(shape)),
        "prior": oracle.prior_net(shape),
    }
    side = {"height": shape.vision_size, "width": shape.vision_size}
    return {
        **{name: oracle.randomise(net, seed + number) for number, (name, net) in enumerate(nets.items())},
        "tokenizer": CLIPTokenizer.from_pretrained(tokenizer, model_max_length=shape.context),
        "image_processor": CLIPImageProcessor(size={"shortest_edge": shape.vision_size}, crop_size=side),
        "scheduler": UnCLIPScheduler(variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=10.0),
    }


def pipeline(parts: dict[str, Any], from_image: bool = False) -> Any:
    """diffusers' prior pipeline, or the one that starts from an image."""
    from diffusers import KandinskyV22PriorEmb2EmbPipeline, KandinskyV22PriorPipeline

    made = (KandinskyV22PriorEmb2EmbPipeline if from_image else KandinskyV22PriorPipeline)(**parts)
    return oracle.quiet(made)


@torch.no_grad()
def forwards(pair: PriorPair) -> list[Row]:
    """Compare one forward pass of each net, and the embedding of the empty picture."""
    model, name = pair.model(), pair.shape.name
    ids = _ids(pair, list(PROMPTS))
    said, text = pair.parts["text_encoder"](ids.input_ids), encode_text(model.clip, PROMPTS)
    if not torch.equal(text.mask, ids.attention_mask.bool()):
        raise ValueError(f"{name}: the masks of the texts differ")
    images, adapter = pictures(pair.shape), model.clip.adapter
    seen = pair.parts["image_encoder"](adapter.image_input(images)).image_embeds
    x, t = torch.randn(2, pair.shape.embed_dim, generator=torch.Generator().manual_seed(1)), torch.tensor([999, 83])
    net = pair.parts["prior"]
    predicted = net(
        x, t, proj_embedding=text.embeds, encoder_hidden_states=text.states, attention_mask=text.mask
    ).predicted_image_embedding
    ours = model.prior.net(x, t, text.embeds, text.states, text.mask)
    reader: Any = model.reader
    empty = pipeline(pair.parts).get_zero_embed(1)[0]
    return [
        compare("text encoder: embedding", name, text.embeds, said.text_embeds, FORWARD),
        compare("text encoder: token states", name, text.states, said.last_hidden_state, FORWARD),
        compare("image encoder", name, encode_image(model.clip, images), seen, FORWARD),
        compare("prior", name, ours, predicted, FORWARD),
        compare("empty picture", name, reader.empty_picture(), empty, FORWARD),
    ]


@torch.no_grad()
def text_run(pair: PriorPair, steps: int = 25, seed: int = 3) -> list[Row]:
    """Compare a run from texts, without and with negative prompts."""
    model, what = pair.model(), f"text to embedding, {steps} steps"
    reference = pipeline(pair.parts)(list(PROMPTS), num_inference_steps=steps, generator=_seeded(seed))
    text, settings = encode_text(model.clip, PROMPTS), {"steps": steps, "guidance_scale": GUIDANCE, "sampler": "ddpm"}
    ours = sample_prior(model.prior, text, seeds=[0, 0], noise=BatchNoise(_seeded(seed), 2), **settings)
    away = pipeline(pair.parts)(
        list(PROMPTS), negative_prompt=list(NEGATIVES), num_inference_steps=steps, generator=_seeded(seed)
    )
    both = sample_prior_pair(
        model.prior, text, encode_text(model.clip, NEGATIVES), seeds=[0, 0], noise=BatchNoise(_seeded(seed), 4),
        **settings,
    )  # fmt: skip
    name = pair.shape.name
    return [
        compare(what, name, ours, reference.image_embeds, EMBEDS),
        compare(f"{what}, negative prompt", name, both[0], away.image_embeds, EMBEDS),
        compare(f"{what}, its own embedding", name, both[1], away.negative_image_embeds, EMBEDS),
    ]


@torch.no_grad()
def image_run(pair: PriorPair, steps: int = 25, strength: float = 0.3, seed: int = 4) -> list[Row]:
    """Compare a run that starts from image embeddings, which diffusers does not normalise."""
    model, name = pair.model(), pair.shape.name
    embeds = encode_image(model.clip, pictures(pair.shape))
    reference = pipeline(pair.parts, from_image=True)(
        list(PROMPTS), image=embeds, strength=strength, num_inference_steps=steps, generator=_seeded(seed)
    ).image_embeds
    text = encode_text(model.clip, PROMPTS)
    ours = sample_prior(
        model.prior, text, seeds=[0, 0], steps=steps, guidance_scale=GUIDANCE, sampler="ddpm", start=embeds,
        strength=strength, noise=BatchNoise(_seeded(seed), 2),
    )  # fmt: skip
    return [compare(f"embedding to embedding, {strength:g} of {steps} steps", name, ours, reference, EMBEDS)]


@torch.no_grad()
def mixture_run(pair: PriorPair, steps: int = 5, seed: int = 5) -> list[Row]:
    """Compare a mixture of a text, an image and another text, and the negative text's embedding."""
    model, name = pair.model(), pair.shape.name
    image = pictures(pair.shape)[:1]
    weights, pixels = (0.5, 0.7, -0.2), model.clip.adapter.image_input(image)
    reference = pipeline(pair.parts).interpolate(
        [PROMPTS[0], pixels, PROMPTS[1]], list(weights), num_inference_steps=steps, generator=_seeded(seed),
        negative_prompt=NEGATIVES[0],
    )  # fmt: skip
    noise = BatchNoise(_seeded(seed), 1)
    first, second, negative = (_drawn(model, prompt, steps, noise) for prompt in (*PROMPTS, NEGATIVES[0]))
    ours = weighted_sum([first, encode_image(model.clip, image), second], weights)
    return [
        compare("mixture", name, ours, reference.image_embeds, EMBEDS),
        compare("mixture: negative text", name, negative, reference.negative_image_embeds, EMBEDS),
    ]


def rows(folder: Path) -> list[Row]:
    """All comparisons on all shapes."""
    found: list[Row] = []
    for number, shape in enumerate(SHAPES):
        pair = make_pair(shape, folder / f"kandinsky-prior-{number}", seed=20 * number)
        found += [*forwards(pair), *text_run(pair), *image_run(pair), *mixture_run(pair)]
        for count in (2, 7, 50) if number == 0 else ():
            found += text_run(pair, count)
    return found


def _drawn(model: UnclipModel, prompt: str, steps: int, noise: BatchNoise) -> Tensor:
    text = encode_text(model.clip, [prompt])
    settings: dict[str, Any] = {"steps": steps, "guidance_scale": GUIDANCE, "sampler": "ddpm"}
    return sample_prior(model.prior, text, seeds=[0], noise=noise, **settings)


def _tokenizer(shape: oracle.Shape) -> ClipTokenizer:
    return ClipTokenizer(byte_vocabulary(oracle.MERGES), oracle.MERGES, shape.context, pad=END)


def _ids(pair: PriorPair, prompts: Sequence[str]) -> Any:
    return pair.parts["tokenizer"](
        list(prompts), padding="max_length", max_length=pair.shape.context, truncation=True, return_tensors="pt"
    )


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
