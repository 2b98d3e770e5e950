"""The prior node: a text to CLIP image embeddings."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ..unclip_core import pipelines
from ..unclip_core.clip.adapter import TextCondition
from ..unclip_core.diffusion.noise import sample_seeds
from ..unclip_core.embedding.ranking import rank
from ..unclip_core.models import Decoder, Prior
from . import defaults, host, inputs, sampling, sockets
from .inputs import InputError, Number
from .scores import scores_text
from .sockets import EmbeddingValue, PartValue, TextValue

PREVIEW_SECONDS: dict[str, float] = {}
"""Family -> seconds that a step of its decoder took when it last drew a preview."""

GUESSED_COST = 4.0
"""How many of the prior's steps a step of the decoder is taken to last, before one was seen."""

ONE_PASS = "This prior maps the text in one pass: steps, guidance and sampler have no effect."
ONE_PASS_PREVIEW = "Nor is there a preview: a pass shows nothing on its way."
ONE_PASS_NEGATIVE = "Nor has the negative text, which guidance alone reads."
UNGUIDED = "Without guidance the negative text has no effect."
STRENGTH = Number("strength", 0.01, 1.0, 0.01)


def check_keep(candidates: Any = defaults.CANDIDATES, keep: Any = defaults.KEEP) -> None:
    """Check both numbers, and one against the other.

    Raises:
        InputError: one is out of range, or more are to be kept than there are.
    """
    inputs.check_int("candidates", candidates, 1, defaults.CANDIDATES_MAX)
    if inputs.check_int("keep", keep, 1, defaults.CANDIDATES_MAX) > candidates:
        raise InputError(f"'keep' is {keep}, but there are only {candidates} 'candidates' to keep from.")


class UnclipPriorSample:
    """Node: a text to image embeddings that fit it."""

    ID = "UnclipPriorSample"
    DISPLAY_NAME = "Prior Sample (unCLIP)"
    CATEGORY = "unCLIP/sampling"
    DESCRIPTION = (
        "Draws a CLIP image embedding that fits the text: what the image shows, before it is drawn. "
        "With several candidates, those nearest to the text are kept."
    )
    SEARCH_ALIASES = [
        "unclip",
        "unclip prior",
        "txt2img",
        "diffusion prior",
        "text to embedding",
        "dall-e 2 prior",
        "dalle2",
        "karlo",
    ]
    RETURN_TYPES = (sockets.EMBEDDING, "STRING")
    RETURN_NAMES = ("embedding", "scores")
    OUTPUT_TOOLTIPS = (
        "The image embeddings that were kept, for each prompt the best first.",
        "The similarity of every candidate with its prompt, the best first; the node shows it too.",
    )
    FUNCTION = "run"
    HAS_INTERMEDIATE_OUTPUT = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order."""
        return {
            "required": {
                "prior": (sockets.PRIOR, {"tooltip": "The prior of Load unCLIP Model."}),
                "text": (sockets.TEXT, {"tooltip": "The text of CLIP Text Encode (unCLIP)."}),
                "seed": inputs.seed_widget(),
                "steps": sampling.steps_widget("Sampling steps. More is slower. 0: auto, the model's own."),
                "guidance_scale": sampling.guidance_widget(
                    "How strictly to follow the text. 1: guidance off; higher: stricter, less varied. "
                    "-1: auto, the model's own."
                ),
                "sampler": sampling.sampler_widget(advanced=True),
                "candidates": inputs.int_widget(
                    defaults.CANDIDATES,
                    1,
                    defaults.CANDIDATES_MAX,
                    "Embeddings to draw of each prompt; those nearest to the text are kept. DALL·E 2 drew 2.",
                ),
                "keep": inputs.int_widget(
                    defaults.KEEP,
                    1,
                    defaults.CANDIDATES_MAX,
                    "How many of the candidates to hand on, the best first.",
                ),
            },
            "optional": {
                "decoder": (
                    sockets.DECODER,
                    {
                        "tooltip": "For a live preview of what the prior has in mind, as often and as fine as a fifth "
                        "of the run's time allows. It does not change the result."
                    },
                ),
                **inputs.interval_widgets(),
                "negative": (
                    sockets.TEXT,
                    {"tooltip": "A text of what the image should not show: guidance leads away from it."},
                ),
                "embedding": (
                    sockets.EMBEDDING,
                    {"tooltip": "An image embedding to start from in place of noise: the text then changes it."},
                ),
                "strength": STRENGTH.widget(
                    defaults.PRIOR_STRENGTH,
                    "How far the text may change the embedding: the share of the steps that are taken. 1 keeps next "
                    "to nothing of it. Without an embedding it has no effect.",
                ),
                "one_pass_noise": (
                    list(defaults.ONE_PASS_NOISES),
                    {
                        "default": defaults.ONE_PASS_NOISE,
                        "advanced": True,
                        "tooltip": "What a prior of one pass (ECLIPSE) starts from: noise as in its training, or "
                        "zeros. Other priors do not read it.",
                    },
                ),
            },
        }

    VALIDATE_INPUTS = inputs.checking(
        check_keep,
        inputs.check_interval_widgets,
        guidance_scale=sampling.GUIDANCE.check,
        guidance_start=inputs.START.check,
        guidance_end=inputs.END.check,
        strength=STRENGTH.check,
    )

    def run(
        self,
        prior: PartValue[Prior],
        text: TextValue,
        seed: int = defaults.SEED,
        steps: int = defaults.AUTO_STEPS,
        guidance_scale: float = defaults.AUTO_GUIDANCE,
        sampler: str = defaults.AUTO_SAMPLER,
        candidates: int = defaults.CANDIDATES,
        keep: int = defaults.KEEP,
        decoder: PartValue[Decoder] | None = None,
        guidance_start: float = defaults.GUIDANCE_START,
        guidance_end: float = defaults.GUIDANCE_END,
        negative: TextValue | None = None,
        embedding: EmbeddingValue | None = None,
        strength: float = defaults.PRIOR_STRENGTH,
        one_pass_noise: str = defaults.ONE_PASS_NOISE,
    ) -> dict[str, Any]:
        """Draw `candidates` embeddings for each prompt of `text` and hand on the `keep` nearest to it."""
        sockets.require_family(text, "text", prior.family, "prior")
        check_keep(candidates, keep)
        chosen = sampling.choose(
            {"steps": steps, "guidance_scale": guidance_scale, "sampler": sampler}, sampling.models_own(prior.part)
        )
        settings = {
            **chosen.settings,
            "candidates": candidates,
            "guidance_interval": inputs.check_interval(guidance_start, guidance_end),
            "one_pass_noise": inputs.check_choice("one_pass_noise", one_pass_noise, defaults.ONE_PASS_NOISES)
            == defaults.ONE_PASS_NOISE,
        }
        count, one_pass = len(text.prompts), prior.part.one_pass
        beside = beside_the_text(prior, negative, embedding, STRENGTH.check(strength))
        draws = Draws(prior.part, text.condition, sample_seeds(inputs.check_seed(seed), count), settings, beside)
        steps = 1 if one_pass else steps_taken(prior.part, chosen.steps, embedding, strength)
        at_once = max(1, defaults.EMBEDDINGS_AT_ONCE // candidates)
        parts, images = [prior], None
        if decoder is not None and not one_pass and host.wants_preview():
            sockets.require_family(prior, "prior", decoder.family, "decoder")
            if decoder.part.reads_beside is None:
                budget = host.PreviewBudget(steps * -(-count // at_once))
                parts, images = [prior, decoder], previewer(draws, decoder.part, budget)
        with host.loaded_together(*parts):
            embeds = host.run_in_chunks(draws.draw, count, at_once, steps, "Prior", images)
        ranking = rank(embeds, text.condition.embeds, keep)
        prompts = tuple(prompt for prompt in text.prompts for _ in range(keep))
        kept = EmbeddingValue(embeds[ranking.rows], prior.family, "prior", prompts, seed)
        scores = scores_text(ranking, text.prompts)
        said = settings_text(chosen, one_pass, negative is not None, decoder is not None)
        return host.with_text((kept, scores), f"{scores}\n{said}")


@dataclass
class Draws:
    """The embeddings to draw, in chunks of whole prompts: a candidate depends on its prompt's seed alone.

    Attributes:
        prior: what draws.
        text: of `N` prompts.
        seeds: one a prompt.
        settings: arguments of `sample_prior` that are the same for all prompts.
        beside: those that have one row for all prompts or one each.
        drawn: the rows that are drawn now, or were last.
    """

    prior: Prior
    text: TextCondition
    seeds: list[int]
    settings: dict[str, Any]
    beside: dict[str, Any]
    drawn: slice = field(default_factory=lambda: slice(0, 0))

    def draw(self, rows: slice, bar: host.Progress) -> Tensor:
        """Return the candidates of these prompts, `[n * candidates, D]`."""
        self.drawn = rows
        beside = {name: rows_of(value, rows, len(self.seeds)) for name, value in self.beside.items()}
        text = rows_of(self.text, rows, len(self.seeds)).to(host.device())
        embeds = pipelines.sample_prior(
            self.prior, text, seeds=self.seeds[rows], on_step=bar, **self.settings, **beside
        )
        if self.prior.one_pass:
            bar.advance()
        return embeds


def rows_of(value: Any, rows: slice, count: int) -> Any:
    """Return those rows of what has `count` of them; anything else as it is, for the core to take or to refuse."""
    if isinstance(value, TextCondition):
        return value.select(range(count)[rows]) if len(value.embeds) == count else value
    return value[rows] if isinstance(value, Tensor) and len(value) == count else value


def beside_the_text(
    prior: PartValue[Prior], negative: TextValue | None, embedding: EmbeddingValue | None, strength: float
) -> dict[str, Any]:
    """Return the core's arguments of a negative text and of an embedding to start from, on the device.

    Raises:
        FamilyError: one is of another family than the prior.
    """
    found: dict[str, Any] = {}
    if negative is not None:
        sockets.require_family(negative, "negative text", prior.family, "prior")
        found["negative"] = negative.condition.to(host.device())
    if embedding is not None:
        sockets.require_family(embedding, "embedding", prior.family, "prior")
        found |= {"start": embedding.embeds.to(host.device()), "strength": strength}
    return found


def steps_taken(prior: Prior, steps: int, embedding: EmbeddingValue | None, strength: float) -> int:
    """Return how many of the steps are taken: those that `strength` leaves of a start from an embedding."""
    if embedding is None or prior.diffusion is None:
        return steps
    return pipelines.count_of(steps, strength, prior.diffusion.compatible)


def settings_text(chosen: sampling.Chosen, one_pass: bool, negative: bool, decoder: bool) -> str:
    """Return what the node says of its settings, and which of its inputs had no effect."""
    if one_pass:
        return " ".join([ONE_PASS, *[ONE_PASS_NEGATIVE] * negative, *[ONE_PASS_PREVIEW] * decoder])
    unread = negative and chosen.settings["guidance_scale"] == 1
    return f"{chosen.text}\n{UNGUIDED}" if unread else chosen.text


def previewer(draws: Draws, decoder: Decoder, budget: host.PreviewBudget) -> host.ToImages:
    """Return a function that draws the first row of the prior's x0 `[B, D]`: `[1, 3, H, W]` in -1..1 on the CPU.

    It takes as many of the decoder's steps as the budget has time for, at most those of `defaults.PREVIEW`, and gives
    None where that is not even one. What a step takes is known from the last time, of whichever run.
    """

    def images(x0: Tensor) -> Tensor | None:
        latest = x0[:1].cpu()  # what the device still has to do is the prior's, not the preview's
        left = budget.left()
        per_step = PREVIEW_SECONDS.get(decoder.family, GUESSED_COST * budget.step_seconds)
        steps = min(defaults.PREVIEW.steps, int(left / per_step) if per_step > 0 else 0)
        if steps < 1:
            return None
        before = budget.spent
        with budget.spending():
            embeds = pipelines.prior_embeds(draws.prior, latest.to(x0.device))
            settings = {**vars(defaults.PREVIEW), "steps": steps}
            first = draws.drawn.start
            text = draws.text.select([first]).to(x0.device)
            drawn = pipelines.sample_decoder(decoder, embeds, text=text, seeds=[draws.seeds[first]], **settings).cpu()
        PREVIEW_SECONDS[decoder.family] = (budget.spent - before) / steps
        return drawn.movedim(-1, 1) * 2 - 1

    return images
