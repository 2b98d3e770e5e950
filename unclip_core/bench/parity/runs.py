"""The comparisons: one forward pass of each net, and whole runs, ours against the references'."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...diffusion.noise import BatchNoise
from ...families.loading import load_model
from ...models import UnclipModel
from ...pipelines import encode_image, encode_text, sample_decoder, sample_prior, upscale
from . import native, oracle

PROMPTS = ("the red cat", "a dog's 2 small hats, on a mat")
GUIDANCE = (4.0, 8.0)
FORWARD, EMBEDS, SMALL, LARGE = 1e-5, 5e-5, 3e-5, 4e-5


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        what: the component, or the pipeline's stage.
        shape: which small model.
        maximum: greatest difference over max(1, greatest value of the reference).
        mean: mean difference, over the same.
        bar: what must not be exceeded, by the maximum (forwards and embeddings) or by the mean (images).
        by_mean: by which.
    """

    what: str
    shape: str
    maximum: float
    mean: float
    bar: float
    by_mean: bool = False

    @property
    def holds(self) -> bool:
        """Whether the bar is kept."""
        return (self.mean if self.by_mean else self.maximum) <= self.bar


def compare(what: str, shape: str, ours: Tensor, reference: Tensor, bar: float, by_mean: bool = False) -> Row:
    """Measure how far `ours` is from the `reference`. Raises ValueError where they are of different shapes."""
    if ours.shape != reference.shape:
        raise ValueError(f"{what}: ours has shape {list(ours.shape)}, the reference {list(reference.shape)}")
    scale = max(1.0, float(reference.abs().max()))
    far = (ours.double() - reference.double()).abs() / scale
    return Row(what, shape, float(far.max()), float(far.mean()), bar, by_mean)


@dataclass(frozen=True)
class Pair:
    """A reference, and what we load from the folder that its own libraries wrote."""

    shape: oracle.Shape
    parts: dict[str, Any]
    text_folder: Path
    variation_folder: Path

    def model(self, conventions: str = "diffusers", variation: bool = False) -> UnclipModel:
        """Load our model from either folder."""
        return load_model(self.variation_folder if variation else self.text_folder, conventions=conventions)


def make_pair(shape: oracle.Shape, folder: Path, seed: int = 0) -> Pair:
    """Build the reference and let diffusers save both its pipelines below `folder`."""
    parts = oracle.components(shape, folder, seed)
    oracle.text_pipeline(parts).save_pretrained(folder / "text")
    oracle.variation_pipeline(parts).save_pretrained(folder / "variation")
    return Pair(shape, parts, folder / "text", folder / "variation")


# ---- single forwards ----


@torch.no_grad()
def forwards(pair: Pair) -> list[Row]:
    """Compare one forward pass of each net, at several timesteps, in the order of a run."""
    model, name = pair.model(), pair.shape.name
    draw = _drawer(1)
    return [
        *_text_rows(pair, model),
        _vision_row(pair),
        *_prior_rows(pair, model, draw),
        *_decoder_rows(pair, model, draw),
        *(_super_res_row(pair, model, draw, last, name) for last in (False, True)),
    ]


def _text_rows(pair: Pair, model: UnclipModel) -> list[Row]:
    ids = _ids(pair, list(PROMPTS))
    reference = pair.parts["text_encoder"](ids.input_ids)
    ours = encode_text(model.clip, PROMPTS)
    name = pair.shape.name
    if not torch.equal(ours.mask, ids.attention_mask.bool()):
        raise ValueError(f"{name}: the masks of the texts differ")
    return [
        compare("text encoder: embedding", name, ours.embeds, reference.text_embeds, FORWARD),
        compare("text encoder: token states", name, ours.states, reference.last_hidden_state, FORWARD),
    ]


def _vision_row(pair: Pair) -> Row:
    adapter = pair.model(variation=True).clip.adapter
    images = pictures(pair.shape)
    pixels = adapter.image_input(images)
    reference = pair.parts["image_encoder"](pixels).image_embeds
    return compare(
        "image encoder", pair.shape.name, encode_image(pair.model(variation=True).clip, images), reference, FORWARD
    )


def _prior_rows(pair: Pair, model: UnclipModel, draw: Any) -> list[Row]:
    text, name = encode_text(model.clip, PROMPTS), pair.shape.name
    x, t = draw(2, pair.shape.embed_dim), torch.tensor([999, 83])
    ours = model.prior.net(x, t, text.embeds, text.states, text.mask)
    reference = pair.parts["prior"](
        x, t, proj_embedding=text.embeds, encoder_hidden_states=text.states, attention_mask=text.mask
    ).predicted_image_embedding
    restored = pair.parts["prior"].post_process_latents(x)
    return [
        compare("prior", name, ours, reference, FORWARD),
        compare("prior: CLIP statistics", name, model.prior.net.denormalize_embeds(x), restored, FORWARD),
    ]


def _decoder_rows(pair: Pair, model: UnclipModel, draw: Any) -> list[Row]:
    text, name = encode_text(model.clip, PROMPTS), pair.shape.name
    embeds, t = draw(2, pair.shape.embed_dim), torch.tensor([999, 41])
    x = draw(2, 3, pair.shape.image_size, pair.shape.image_size)
    states, added = pair.parts["text_proj"](
        image_embeddings=embeds,
        prompt_embeds=text.embeds,
        text_encoder_hidden_states=text.states,
        do_classifier_free_guidance=False,
    )
    net = model.decoder.net
    condition = net.condition(embeds, text.embeds, text.states, text.mask)
    reference = pair.parts["decoder"](
        x, t, encoder_hidden_states=states, class_labels=added, attention_mask=condition["context_mask"]
    ).sample
    return [
        compare("text projection: tokens", name, condition["context"], states, FORWARD),
        compare("text projection: time", name, condition["embed"], added, FORWARD),
        compare("decoder", name, net(x, t, condition), reference, FORWARD),
    ]


def _super_res_row(pair: Pair, model: UnclipModel, draw: Any, last: bool, name: str) -> Row:
    side, t = pair.shape.super_size, torch.tensor([832, 0])
    x, low = draw(2, 3, side, side), draw(2, 3, side, side)
    key = "super_res_last" if last else "super_res_first"
    net: Any = model.upsampler.last if last else model.upsampler.net
    reference = pair.parts[key](torch.cat([x, low], dim=1), t).sample
    return compare(f"super-resolution, {'last' if last else 'first'}", name, net(x, t, low), reference, FORWARD)


# ---- whole runs against diffusers ----


@torch.no_grad()
def text_run(pair: Pair, steps: tuple[int, int, int] = (25, 25, 7), seed: int = 3) -> list[Row]:
    """Compare text to image with diffusers, on the same noise in the same order."""
    schedulers = [pair.parts["prior_scheduler"], pair.parts["decoder_scheduler"]]
    with oracle.one_step_defined(pair.parts), oracle.last_states(*schedulers) as states:
        large = oracle.text_pipeline(pair.parts)(
            list(PROMPTS),
            prior_num_inference_steps=steps[0],
            decoder_num_inference_steps=steps[1],
            super_res_num_inference_steps=steps[2],
            generator=torch.Generator().manual_seed(seed),
            prior_guidance_scale=GUIDANCE[0],
            decoder_guidance_scale=GUIDANCE[1],
            output_type="np",
        ).images
    reference = (pair.parts["prior"].post_process_latents(states[0]), _image(states[1]), torch.from_numpy(large))
    noise = BatchNoise(torch.Generator().manual_seed(seed), len(PROMPTS))
    return _run_rows(f"text to image, {_said(steps)}", pair, _ours(pair.model(), steps, noise), reference)


@torch.no_grad()
def variation_run(pair: Pair, steps: tuple[int, int] = (25, 7), seed: int = 4) -> list[Row]:
    """Compare image variations with diffusers; both get the same preprocessed image."""
    model = pair.model(variation=True)
    image = pictures(pair.shape)[:1]
    embeds = encode_image(model.clip, image)
    with oracle.one_step_defined(pair.parts), oracle.last_states(pair.parts["decoder_scheduler"]) as states:
        large = oracle.variation_pipeline(pair.parts)(
            image_embeddings=pair.parts["image_encoder"](model.clip.adapter.image_input(image)).image_embeds,
            image=None,
            num_images_per_prompt=2,
            decoder_num_inference_steps=steps[0],
            super_res_num_inference_steps=steps[1],
            generator=torch.Generator().manual_seed(seed),
            decoder_guidance_scale=GUIDANCE[1],
            output_type="np",
        ).images
    noise = BatchNoise(torch.Generator().manual_seed(seed), 2)
    small = sample_decoder(
        model.decoder,
        embeds.repeat(2, 1),
        steps=steps[0],
        guidance_scale=GUIDANCE[1],
        seeds=[0, 0],
        sampler="ddpm",
        noise=noise,
    )
    ours = (embeds, small, upscale(model.upsampler, small, steps=steps[1], seeds=[0, 0], sampler="ddpm", noise=noise))
    reference = (embeds, _image(states[0]), torch.from_numpy(large))
    return _run_rows(f"image variation, {_said(steps)}", pair, ours, reference)[1:]


# ---- whole runs against kakaobrain's conventions ----


@torch.no_grad()
def native_run(pair: Pair, steps: tuple[int, int, int] = (25, 25, 7), seed: int = 5) -> list[Row]:
    """Compare text to image in native mode with kakaobrain's rules over diffusers' nets."""
    noise = BatchNoise(torch.Generator().manual_seed(seed), len(PROMPTS))
    reference = _native_reference(pair, steps, BatchNoise(torch.Generator().manual_seed(seed), len(PROMPTS)))
    ours = _ours(pair.model("native"), steps, noise)
    return _run_rows(f"native text to image, {_said(steps)}", pair, ours, reference)


def _native_reference(pair: Pair, steps: tuple[int, int, int], noise: BatchNoise) -> tuple[Tensor, Tensor, Tensor]:
    parts, shape = pair.parts, pair.shape
    ids = _ids(pair, [*PROMPTS, *[""] * len(PROMPTS)])
    said, mask = parts["text_encoder"](ids.input_ids), ids.attention_mask.bool()

    def draws(*size: int) -> Iterator[Tensor]:
        while True:
            yield noise.normal(size)

    def prior(x: Tensor, t: Tensor) -> Tensor:
        return parts["prior"](
            x, t, proj_embedding=said.text_embeds, encoder_hidden_states=said.last_hidden_state, attention_mask=mask
        ).predicted_image_embedding

    source = draws(shape.embed_dim)
    model = native.guided(prior, GUIDANCE[0])
    latent = native.ancestral(lambda x, t, last: model(x, t), native.PRIOR, steps[0], next(source), source)
    embeds = latent * parts["prior"].clip_std + parts["prior"].clip_mean
    small = native.ancestral(
        _native_decoder(pair, embeds, said, mask),
        native.DECODER,
        steps[1],
        *_start(draws(3, shape.image_size, shape.image_size)),
    )
    low = native.enlarged(small, shape.super_size)

    def super_res(x: Tensor, t: Tensor, last: bool) -> Tensor:
        return parts["super_res_last" if last else "super_res_first"](torch.cat([x, low], dim=1), t).sample

    large = native.ancestral(super_res, native.SUPER_RES, steps[2], *_start(draws(3, *low.shape[2:])))
    return embeds, _image(small), _image(large)


def _native_decoder(pair: Pair, embeds: Tensor, said: Any, mask: Tensor) -> Any:
    projection = pair.parts["text_proj"]
    blank = projection.learned_classifier_free_guidance_embeddings.expand(len(embeds), -1)
    states, added = projection(
        image_embeddings=torch.cat([embeds, blank]),
        prompt_embeds=said.text_embeds,
        text_encoder_hidden_states=said.last_hidden_state,
        do_classifier_free_guidance=False,
    )
    wide = torch.nn.functional.pad(mask, (pair.shape.extra_tokens, 0), value=True)

    def net(x: Tensor, t: Tensor) -> Tensor:
        return pair.parts["decoder"](x, t, encoder_hidden_states=states, class_labels=added, attention_mask=wide).sample

    model = native.guided(net, GUIDANCE[1], channels=3)
    return lambda x, t, last: model(x, t)


# ---- helpers ----


def _ours(model: UnclipModel, steps: tuple[int, int, int], noise: BatchNoise) -> tuple[Tensor, Tensor, Tensor]:
    text, seeds = encode_text(model.clip, PROMPTS), [0] * len(PROMPTS)
    embeds = sample_prior(
        model.prior, text, steps=steps[0], guidance_scale=GUIDANCE[0], seeds=seeds, sampler="ddpm", noise=noise
    )
    small = sample_decoder(
        model.decoder,
        embeds,
        text=text,
        steps=steps[1],
        guidance_scale=GUIDANCE[1],
        seeds=seeds,
        sampler="ddpm",
        noise=noise,
    )
    return embeds, small, upscale(model.upsampler, small, steps=steps[2], seeds=seeds, sampler="ddpm", noise=noise)


def _run_rows(what: str, pair: Pair, ours: Sequence[Tensor], reference: Sequence[Tensor]) -> list[Row]:
    stages = (("image embeddings", EMBEDS, False), ("small image", SMALL, True), ("large image", LARGE, True))
    return [
        compare(f"{what}: {stage}", pair.shape.name, mine, theirs, bar, by_mean)
        for (stage, bar, by_mean), mine, theirs in zip(stages, ours, reference, strict=True)
    ]


def _ids(pair: Pair, prompts: list[str]) -> Any:
    return pair.parts["tokenizer"](
        prompts, padding="max_length", max_length=pair.shape.context, truncation=True, return_tensors="pt"
    )


def _image(state: Tensor) -> Tensor:
    return (state * 0.5 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)


def pictures(shape: oracle.Shape) -> Tensor:
    """Two images that are not square, of smooth colours."""
    rows, columns = shape.vision_size + 9, 2 * shape.vision_size + 5
    y, x = torch.linspace(0, 3, rows)[:, None], torch.linspace(0, 5, columns)[None]
    waves = [torch.sin(x + y), torch.cos(x * y), torch.sin(x - 2 * y)]
    image = torch.stack(waves, dim=-1) * 0.5 + 0.5
    return torch.stack([image, image.flip(0)])


def _drawer(seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator)


def _start(source: Iterator[Tensor]) -> tuple[Tensor, Iterator[Tensor]]:
    return next(source), source


def _said(steps: Sequence[int]) -> str:
    return "/".join(map(str, steps)) + " steps"
