"""The nodes that show diffusion at work: the forward process, and the states of a sampling run."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..unclip_core.diffusion.film import Film
from ..unclip_core.diffusion.forward import diffuse
from ..unclip_core.diffusion.noise import NoiseSource, sample_seeds
from ..unclip_core.diffusion.samplers import StepInfo
from ..unclip_core.diffusion.schedules import log_snr
from ..unclip_core.diffusion.spec import DiffusionSpec
from ..unclip_core.models import Decoder, ImageCodec
from ..unclip_core.pipelines import sample_decoder, to_images
from ..unclip_core.plotting import plots
from . import defaults, host, inputs, sampling, sockets
from .drawing import ETA, decoder_input, eta_widget, rows_of, sampling_inputs, text_input, text_rows
from .images import square, tile, to_rgb
from .inputs import InputError
from .sockets import EmbeddingValue, PartValue, TextValue

DECIBEL = 4.342944819032518
"""10 / ln 10: of a natural logarithm the decibels."""

PLOT_RANGE = (-80.0, 60.0)
RED, BLUE = (200, 40, 40), (31, 119, 180)


class UnclipForwardDiffusion:
    """Node: the forward process of an image at chosen timesteps."""

    ID = "UnclipForwardDiffusion"
    DISPLAY_NAME = "Forward Diffusion (unCLIP)"
    CATEGORY = "unCLIP/learn"
    DESCRIPTION = (
        "Shows the Markov chain that turns an image to noise, step by step, at chosen timesteps of the decoder's "
        "schedule, and how much signal is left at each."
    )
    SEARCH_ALIASES = ["forward process", "add noise", "markov chain", "signal to noise", "noise schedule"]
    RETURN_TYPES = ("IMAGE", "IMAGE", "IMAGE")
    RETURN_NAMES = ("strip", "frames", "snr_plot")
    OUTPUT_TOOLTIPS = (
        "The frames side by side, one row for each image, under their timesteps.",
        "The frames as a batch: all of the first image, then all of the second.",
        "The schedule's signal-to-noise ratio, with the chosen timesteps as dots.",
    )
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        return {
            "required": {
                "decoder": (sockets.DECODER, {"tooltip": "The decoder of Load unCLIP Model: its schedule is shown."}),
                "image": ("IMAGE", {"tooltip": "The image. It is resized and cropped to the decoder's square."}),
                "seed": inputs.seed_widget(),
                "timesteps": (
                    "STRING",
                    {
                        "default": defaults.TIMESTEPS,
                        "tooltip": "The timesteps to show, separated by commas, from 0 to the schedule's last (999).",
                    },
                ),
            }
        }

    def run(
        self, decoder: PartValue[Decoder], image: Tensor, seed: int = defaults.SEED, timesteps: str = defaults.TIMESTEPS
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Diffuse each of the images `[B, H, W, C]` along one chain."""
        diffusion = decoder.part.diffusion
        times = check_timesteps(timesteps, diffusion.train_steps)
        images = square(to_rgb(image), decoder.part.image_size).movedim(-1, 1) * 2 - 1
        seeds = sample_seeds(inputs.check_seed(seed), len(images))
        with codec_loaded(decoder) as codec:

            def walk(rows: slice, bar: host.Progress) -> Tensor:
                latents = codec.encode(images[rows].to(host.device())).cpu()
                noise = NoiseSource(seeds[rows], "forward")
                frames = decode_frames(codec, diffuse(latents, diffusion.table[times].tolist(), noise))
                bar.advance()
                return frames

            frames = host.run_in_chunks(walk, len(images), defaults.IMAGES_AT_ONCE, 1, "Chain").flatten(0, 1)
        strip = strip_of(frames, [f"t = {time}" for time in times])
        place = host.intermediate_device()
        return (strip.to(place), frames.to(place), snr_plot(diffusion, times).to(place))


class UnclipDenoisingFilm:
    """Node: the states and x0 guesses of a sampling run."""

    ID = "UnclipDenoisingFilm"
    DISPLAY_NAME = "Denoising Film (unCLIP)"
    CATEGORY = "unCLIP/learn"
    DESCRIPTION = (
        "Draws an image as Decoder Sample does, and shows the way there: every k-th step's noisy state, and below it "
        "the image that the network sees in it."
    )
    SEARCH_ALIASES = ["reverse process", "denoising steps", "x0 prediction", "sampling film", "debug sampler"]
    RETURN_TYPES = ("IMAGE", "IMAGE", "IMAGE", "IMAGE")
    RETURN_NAMES = ("strip", "states", "guesses", "image")
    OUTPUT_TOOLTIPS = (
        "For each image a row of states and a row of what the network sees in them, under their timesteps.",
        "The states x_t as a batch: all of the first image, then all of the second.",
        "The guesses x0 as a batch, in the same order.",
        "The finished images, as Decoder Sample draws them.",
    )
    HAS_INTERMEDIATE_OUTPUT = True
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        return {
            "required": {
                "decoder": decoder_input(),
                "embedding": (sockets.EMBEDDING, {"tooltip": "What to draw."}),
                **sampling_inputs(),
                "sampler": sampling.sampler_widget(),
                "eta": eta_widget(),
                "every": inputs.int_widget(
                    defaults.FILM_EVERY, 1, defaults.STEPS_MAX, "Show every so many steps; the last is always shown."
                ),
            },
            "optional": {"text": text_input()},
        }

    VALIDATE_INPUTS = inputs.checking(guidance_scale=sampling.GUIDANCE.check, eta=ETA.check)

    def run(
        self,
        decoder: PartValue[Decoder],
        embedding: EmbeddingValue,
        seed: int = defaults.SEED,
        steps: int = defaults.AUTO_STEPS,
        guidance_scale: float = defaults.AUTO_GUIDANCE,
        sampler: str = defaults.AUTO_SAMPLER,
        eta: float = defaults.ETA,
        every: int = defaults.FILM_EVERY,
        text: TextValue | None = None,
    ) -> dict[str, Any]:
        """Sample an image of each embedding, all from the noise of the one seed, and show every k-th state."""
        sockets.require_family(embedding, "embedding", decoder.family, "decoder")
        chosen = sampling.choose(
            {"steps": steps, "guidance_scale": guidance_scale, "sampler": sampler}, sampling.models_own(decoder.part)
        )
        settings = {**chosen.settings, "eta": ETA.check(eta)}
        count, codec = len(embedding.embeds), decoder.part.codec
        seeds = [inputs.check_seed(seed)] * count
        every = inputs.check_int("every", every, 1, defaults.STEPS_MAX)
        condition = text_rows(text, decoder, count)

        def shoot(rows: slice, on_step: host.OnStep) -> Shot:
            embeds = embedding.embeds[rows].to(host.device())
            film = Film(NoiseSource(seeds[rows], "decoder").normal(decoder.part.latent_shape), every)
            more = {**settings, "text": rows_of(condition, rows), "on_step": call_all(on_step, film)}
            drawn = sample_decoder(decoder.part, embeds, seeds=seeds[rows], **more)
            states, guesses = (decode_frames(codec, kept) for kept in (film.states, film.predictions))
            return Shot(film.times, states, guesses, drawn.to(host.intermediate_device()))

        def film(chunks: Sequence[slice]) -> list[Shot]:
            with host.progress(chosen.steps * len(chunks), "Film", codec.preview) as bar:
                return [shoot(rows, bar) for rows in chunks]

        with host.loaded(decoder):
            shots = host.halving(film, count, defaults.IMAGES_AT_ONCE, "Film")
        states, guesses, image = (torch.cat([getattr(shot, name) for shot in shots]) for name in Shot._fields[1:])
        names = ["end" if time is None else f"t = {time}" for time in shots[0].times]
        strip = strip_of(torch.stack([states, guesses], dim=1).flatten(0, 2), names)
        place = host.intermediate_device()
        shown = tuple(each.to(place) for each in (strip, states.flatten(0, 1), guesses.flatten(0, 1), image))
        return host.with_text(shown, chosen.text)


class Shot(NamedTuple):
    """A film of `B` images: the times of its N frames, their states and guesses `[B, N, S, S, 3]`, the images."""

    times: list[int | None]
    states: Tensor
    guesses: Tensor
    images: Tensor


def call_all(*callbacks: host.OnStep) -> host.OnStep:
    """Return one callback for a sampler that calls all of these, in this order."""

    def call(info: StepInfo) -> None:
        for callback in callbacks:
            callback(info)

    return call


@contextmanager
def codec_loaded(decoder: PartValue[Decoder]) -> Iterator[ImageCodec]:
    """Give the decoder's codec with its weights on the device, if it has some, while the context lasts."""
    if decoder.part.codec.module is None:
        yield decoder.part.codec
    else:
        with host.loaded(decoder) as part:
            yield part.codec


def decode_frames(codec: ImageCodec, frames: Iterable[Tensor]) -> Tensor:
    """Decode `N` frames of latents `[B, C, s, s]` to images `[B, N, S, S, 3]` in 0..1, a frame at a time."""
    return torch.stack([to_images(codec.decode(frame.to(host.device()))).cpu() for frame in frames], dim=1)


def strip_of(frames: Tensor, names: list[str]) -> Tensor:
    """Lay frames `[rows * N, H, W, 3]` out as one image `[1, H', W', 3]`, `N` in a row, under their N names."""
    return torch.cat([plots.captions(names, frames.shape[2])[None], tile(frames, len(names))], dim=1)


def snr_plot(diffusion: DiffusionSpec, times: list[int]) -> Tensor:
    """Plot the schedule's signal-to-noise ratio in dB over its timesteps, `[1, H, W, 3]`, with dots at `times`."""
    levels = (log_snr(diffusion.table) * DECIBEL).tolist()
    curve = plots.Curve("signal / noise in dB", range(len(levels)), levels, BLUE, times)
    share = plots.Curve("signal's share in %", range(len(levels)), (100 * diffusion.table).tolist(), RED, times)
    low = max(PLOT_RANGE[0], min(levels))
    title = f"{diffusion.schedule} schedule"
    return plots.plot([curve, share], title=title, x_label="timestep", y_range=(low, 105.0))[None]


def check_timesteps(text: Any, train_steps: int) -> list[int]:
    """Parse the timesteps that a text lists; return them ascending, each once.

    Raises:
        InputError: it lists none, or something that is no timestep of the schedule.
    """
    if not isinstance(text, str):
        raise InputError(f"'timesteps' must be a text such as '{defaults.TIMESTEPS}', not {text!r}.")
    parts = re.split(r"[\s,;]+", text.strip(" \t\r\n,;"))
    parts = [part for part in parts if part]
    wrong = [part for part in parts if not re.fullmatch("[0-9]{1,9}", part) or int(part) >= train_steps]
    if wrong or not parts:
        found = f"'{wrong[0][:20]}' is none of them" if wrong else "none is given"
        raise InputError(f"'timesteps' takes whole numbers from 0 to {train_steps - 1}, separated by commas: {found}.")
    return sorted({int(part) for part in parts})
