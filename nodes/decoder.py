"""The decoder node: image embeddings to small images."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from ..unclip_core import pipelines
from ..unclip_core.diffusion.noise import NoiseSource, sample_seeds
from ..unclip_core.models import Clip, Decoder
from ..unclip_core.pipelines import editing
from . import defaults, host, inputs, sampling, sockets
from .batches import common_count, expand_batch
from .canvas import STRENGTH as IMAGE_STRENGTH
from .canvas import CanvasInputs, canvas_inputs, check_sides, unread
from .drawing import ETA, decoder_input, eta_widget, prompt_rows, rows_of, sampling_inputs, text_rows
from .inputs import InputError, Number
from .sockets import EmbeddingValue, NoiseValue, PartValue, TextValue

STRENGTH = Number("clip_strength", 0.0, defaults.CLIP_STRENGTH_MAX, 0.1)


class UnclipDecoderSample:
    """Node: image embeddings to small images."""

    ID = "UnclipDecoderSample"
    DISPLAY_NAME = "Decoder Sample (unCLIP)"
    CATEGORY = "unCLIP/sampling"
    DESCRIPTION = "Draws small images that show what the image embeddings say. Upscale makes them larger."
    SEARCH_ALIASES = [
        "unclip", "unclip decoder", "embedding to image", "dall-e 2 decoder", "dalle2", "karlo", "image variations",
        "variation", "img2img", "image to image", "txt2img",
    ]  # fmt: skip
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)
    OUTPUT_TOOLTIPS = ("The images: all of the first embedding, then all of the second, and so on.",)
    HAS_INTERMEDIATE_OUTPUT = True
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        return {
            "required": {
                "decoder": decoder_input(),
                "embedding": (
                    sockets.EMBEDDING,
                    {"tooltip": "What to draw: of Prior Sample, CLIP Image Encode or Embedding Interpolate."},
                ),
                **sampling_inputs(),
                "sampler": sampling.sampler_widget(advanced=True),
                "eta": eta_widget(),
                "batch_size": inputs.int_widget(
                    defaults.BATCH_SIZE, 1, defaults.BATCH_MAX, "Images to draw of each embedding."
                ),
            },
            "optional": {
                "text": (
                    sockets.TEXT,
                    {"tooltip": "The prompt again, which the decoder can read too. Leave open to vary an image."},
                ),
                "noise": (
                    sockets.NOISE,
                    {"tooltip": "What to draw from, of DDIM Inversion. Leave open to draw it by the seed."},
                ),
                "clip": (sockets.CLIP, {"tooltip": "The CLIP that guides, with a clip_strength above 0."}),
                "clip_text": (
                    sockets.TEXT,
                    {"tooltip": "What CLIP guides toward. Leave open to take 'text'."},
                ),
                "clip_strength": STRENGTH.widget(
                    defaults.CLIP_STRENGTH,
                    "How strongly CLIP's gradient pulls in each step, which then takes about three times as long.",
                    advanced=True,
                ),
                "embedding_noise": (
                    list(defaults.EMBEDDING_NOISES),
                    {
                        "default": defaults.EMBEDDING_NOISE,
                        "tooltip": "Noise of several embeddings: shared, for smooth transitions, or each its own.",
                        "advanced": True,
                    },
                ),
                **inputs.interval_widgets(),
                **canvas_inputs(),
            },
        }

    VALIDATE_INPUTS = inputs.checking(
        inputs.check_interval_widgets,
        check_sides,
        guidance_scale=sampling.GUIDANCE.check,
        eta=ETA.check,
        clip_strength=STRENGTH.check,
        guidance_start=inputs.START.check,
        guidance_end=inputs.END.check,
        strength=IMAGE_STRENGTH.check,
    )

    def run(
        self,
        decoder: PartValue[Decoder],
        embedding: EmbeddingValue,
        seed: int = defaults.SEED,
        steps: int = defaults.AUTO_STEPS,
        guidance_scale: float = defaults.AUTO_GUIDANCE,
        sampler: str = defaults.AUTO_SAMPLER,
        eta: float = defaults.ETA,
        batch_size: int = defaults.BATCH_SIZE,
        text: TextValue | None = None,
        noise: NoiseValue | None = None,
        clip: PartValue[Clip] | None = None,
        clip_text: TextValue | None = None,
        clip_strength: float = defaults.CLIP_STRENGTH,
        embedding_noise: str = defaults.EMBEDDING_NOISE,
        guidance_start: float = defaults.GUIDANCE_START,
        guidance_end: float = defaults.GUIDANCE_END,
        width: int = defaults.OWN_SIZE,
        height: int = defaults.OWN_SIZE,
        image: Tensor | None = None,
        strength: float = defaults.IMAGE_STRENGTH,
        hint: Tensor | None = None,
        negative: EmbeddingValue | None = None,
    ) -> dict[str, Any]:
        """Draw `batch_size` images of each of the `B` embeddings: `[B * batch_size, H, W, 3]` in 0..1.

        Images to start from, hints and negative embeddings are one for all, or one each; one embedding may go with
        several of them.

        Image `j` of every embedding starts from the same noise, that of seed + j. So an image does not depend
        on its neighbours in the batch, and an interpolation changes smoothly from frame to frame. With
        `embedding_noise` "own" embedding `i` starts from its own, which depends on `i` and seed + j.
        """
        sockets.require_family(embedding, "embedding", decoder.family, "decoder")
        batch_size = inputs.check_int("batch_size", batch_size, 1, defaults.BATCH_MAX)
        chosen = sampling.choose(
            {"steps": steps, "guidance_scale": guidance_scale, "sampler": sampler},
            *noises_own(noise),
            sampling.models_own(decoder.part),
        )
        settings = {
            **chosen.settings,
            "eta": ETA.check(eta),
            "guidance_interval": inputs.check_interval(guidance_start, guidance_end),
        }
        canvas = CanvasInputs.of(decoder.part, width, height, image, strength, hint, negative)
        count = common_count(embedding=len(embedding.embeds), **canvas.counts)
        canvas = canvas.repeated(count, batch_size)
        guide = Guide.of(clip, text if clip_text is None else clip_text, clip_strength, count, batch_size)
        noises = NoiseInputs.of(
            decoder, noise, inputs.check_seed(seed), check_noise(embedding_noise), count, batch_size
        )
        embeds = expand_batch(embedding.embeds, count).repeat_interleave(batch_size, dim=0)
        condition = text_rows(text, decoder, count, batch_size)

        def draw(rows: slice, on_step: host.OnStep) -> Tensor:
            seen = embeds[rows].to(host.device())
            more = {**settings, **noises.rows(rows), **canvas.rows(rows)}
            more |= {"text": rows_of(condition, rows), "on_step": on_step}
            sample = guide.over(rows) if guide else pipelines.sample_decoder
            return sample(decoder.part, seen, **more)

        with host.loaded_together(decoder, *([host.seeing(guide.clip)] if guide else [])):
            steps, preview = canvas.steps_taken(chosen.steps), decoder.part.codec.preview
            images = host.run_in_chunks(draw, len(embeds), defaults.IMAGES_AT_ONCE, steps, "Decoder", preview)
        said = unread(decoder.part, chosen.settings["guidance_scale"], text is not None, negative is not None)
        return host.with_text((images,), "\n".join([chosen.text, *said]))


@dataclass(frozen=True)
class Guide:
    """Guidance by CLIP's gradient: the CLIP, the text embedding that each image is drawn toward `[N, D]`, the scale."""

    clip: PartValue[Clip]
    wanted: Tensor
    strength: float

    @classmethod
    def of(
        cls, clip: PartValue[Clip] | None, text: TextValue | None, strength: float, count: int, batch_size: int
    ) -> "Guide | None":
        """Make the guidance of the node's inputs; None for a strength of 0.

        Raises:
            FamilyError: the text was read by another family's CLIP.
            InputError: CLIP or text are missing, or the number of texts does not fit.
        """
        if STRENGTH.check(strength) == 0:
            return None
        if clip is None or text is None:
            missing = "'clip'" if clip is None else "'text' or 'clip_text'"
            raise InputError(f"'clip_strength' is {strength:g}, but {missing} is not connected: connect it, or set 0.")
        sockets.require_family(text, "text", clip.family, "CLIP that guides")
        wanted = text.condition.embeds[prompt_rows(len(text.prompts), count, batch_size)]
        return cls(clip, wanted, float(strength))

    def over(self, rows: slice) -> Callable[..., Tensor]:
        """Return a function with the arguments of `sample_decoder` that draws these images under the guidance."""
        wanted = self.wanted[rows].to(host.device())

        def sample(decoder: Decoder, embeds: Tensor, **settings: Any) -> Tensor:
            return editing.guided_decoder(decoder, self.clip.part, wanted, self.strength, embeds, **settings)

        return sample


@dataclass(frozen=True)
class NoiseInputs:
    """What the randomness of `N` images comes from.

    Attributes:
        seeds: one an image.
        streams: of each image the name of the stream that its seed draws from.
        start: the noise `[N, C, s, s]` to start from, where it is given and not drawn.
        error: how far the decoder errs about the images of `start`, `[N]`; None is 0.
    """

    seeds: list[int]
    streams: list[str]
    start: Tensor | None = None
    error: Tensor | None = None

    @classmethod
    def of(
        cls, decoder: PartValue[Decoder], noise: NoiseValue | None, seed: int, own: bool, count: int, batch_size: int
    ) -> "NoiseInputs":
        """Make those of `batch_size` images of each of `count` embeddings.

        Args:
            own: whether each embedding has noise of its own, in place of the same for all.

        Raises:
            FamilyError: the noise is of another family than the decoder.
            InputError: it is not one for all, or one for each embedding.
        """
        streams = [pipelines.candidate_stream("decoder", i if own else 0) for i in range(count)]
        drawn = cls(sample_seeds(seed, batch_size) * count, [s for s in streams for _ in range(batch_size)])
        if noise is not None:
            sockets.require_family(noise, "noise", decoder.family, "decoder")
            if len(noise.noise) not in (1, count):
                raise InputError(f"{len(noise.noise)} noises do not fit {count} embeddings: give one, or one for each.")
            start, error = (
                None if part is None else expand_batch(part, count).repeat_interleave(batch_size, dim=0)
                for part in (noise.noise, noise.error)
            )
            drawn = replace(drawn, start=start, error=error)
        return drawn

    def rows(self, rows: slice) -> dict[str, Any]:
        """Return the arguments of `sample_decoder` for these images, on the device."""
        seeds = self.seeds[rows]
        given = {"start": self.start, "start_error": self.error}
        placed = {name: part[rows].to(host.device()) for name, part in given.items() if part is not None}
        return {"seeds": seeds, "noise": NoiseSource(seeds, self.streams[rows]), **placed}


def noises_own(noise: NoiseValue | None) -> list[sampling.Own]:
    """Return the settings of the inversion that found the noise, if one did: they draw its image again."""
    found_with = None if noise is None else noise.found_with
    return [] if found_with is None else [sampling.Own(vars(found_with), "as the noise was found")]


def check_noise(value: Any) -> bool:
    """Tell whether each embedding has its own noise.

    Raises:
        InputError: `value` is none of the choices.
    """
    if value not in defaults.EMBEDDING_NOISES:
        raise InputError(f"'embedding_noise' must be one of {', '.join(defaults.EMBEDDING_NOISES)}, not {value!r}.")
    return value == "own"
