"""The recipe of the bundled model as data: what each stage is trained on, on which objective, how long and how fast.

A stage is trained in phases, one after the other; each goes on from the weights of the one before.
"""

from dataclasses import dataclass

from ...train.config import Training


@dataclass(frozen=True)
class ClipPhase:
    """A part of CLIP's training.

    Attributes:
        training: steps, batch (images, and as many hard-negative captions) and learning rate.
        shape_weight: of the shape heads' losses, in relation to the other heads'.
        text_weight: of the attribute loss of the text embedding, in relation to the image embedding's.
        shared_heads: whether the same heads read both embeddings, so that both must code attributes alike.
        patch_weight: of the loss of each patch token's attributes, read off by linear heads.
        unnamed: share of the things that are drawn in colours without a name.
    """

    training: Training
    shape_weight: float = 1.0
    text_weight: float = 0.3
    shared_heads: bool = False
    patch_weight: float = 0.0
    unnamed: float = 0.0


@dataclass(frozen=True)
class PriorPhase:
    """The prior's training.

    Attributes:
        training: steps, batch and learning rate.
        empty_captions: share of captions replaced by the empty one, which trains guidance's unconditional half.
        unnamed: share of the things that are drawn in colours without a name.
    """

    training: Training
    empty_captions: float = 0.1
    unnamed: float = 0.1


@dataclass(frozen=True)
class DecoderPhase:
    """A part of the decoder's training.

    Attributes:
        training: steps, batch and learning rate.
        objective: "shapes-decoder", or "shapes-canvases" for the conditioner's canvases and boxes without diffusion.
        true_boxes: share of samples whose canvases the UNet sees where the things really are.
        freeze_boxes: whether the layer that finds the boxes is not trained.
        unnamed: share of the things that are drawn in colours without a name.
        embed_noise: largest length of the noise on image embeddings: a prior's are never quite right.
    """

    training: Training
    objective: str = "shapes-decoder"
    true_boxes: float = 0.0
    freeze_boxes: bool = False
    unnamed: float = 0.25
    embed_noise: float = 0.1


@dataclass(frozen=True)
class UpsamplerPhase:
    """An upsampler's training.

    Attributes:
        training: steps, batch and learning rate.
        size: side of the large images, px.
        crop: side of the crops that it sees of them, px.
        pairs: share of scenes with two things.
        unnamed: share of the things that are drawn in colours without a name; an upsampler needs their outlines only.
        last_step: share of crops at the last timestep, pure noise, where sampling decides most.
        bsr: whether the small images are corrupted by BSR degradation rather than by blur.
    """

    training: Training
    size: int = 256
    crop: int = 96
    pairs: float = 0.5
    unnamed: float = 0.3
    last_step: float = 0.3
    bsr: bool = False


def _training(
    steps: int, batch: int, lr: float, warmup: int, weight_decay: float, ema: float, stop: int = 0, muon: bool = True
) -> Training:
    """What all trainings of the recipe share: two minutes between checkpoints, Muon for sides of up to 256."""
    return Training(
        steps=steps,
        batch=batch,
        lr=lr,
        warmup=warmup,
        weight_decay=weight_decay,
        ema=ema,
        stop=stop,
        optimizer="muon" if muon else "adamw",
        muon_max_side=256,
        beta2=0.99,
        log_every=50,
        save_minutes=2.0,
    )


def _adamw(steps: int, batch: int, lr: float, warmup: int, ema: float, stop: int = 0) -> Training:
    return _training(steps, batch, lr, warmup, weight_decay=0.02, ema=ema, stop=stop, muon=False)


CLIP_PHASES = (
    # Colours, places and retrieval come first; the many small steps of the second phase bring shapes and binding.
    ClipPhase(_adamw(1800, 128, 1e-3, warmup=150, ema=0.998, stop=1419)),
    ClipPhase(
        _adamw(2600, 48, 6e-4, warmup=50, ema=0.998, stop=778), shape_weight=3.0, text_weight=1.0, shared_heads=True
    ),
    ClipPhase(
        _adamw(1500, 64, 8e-4, warmup=50, ema=0.998),
        shape_weight=3.0,
        text_weight=0.5,
        shared_heads=True,
        patch_weight=2.0,
    ),
    ClipPhase(
        _adamw(450, 64, 6e-4, warmup=30, ema=0.996),
        shape_weight=3.0,
        text_weight=0.5,
        shared_heads=True,
        patch_weight=1.0,
    ),
    # Colours without a name teach what a shape is in whatever colour: the pairs that are held out gain most.
    ClipPhase(
        _adamw(3300, 64, 8e-4, warmup=50, ema=0.998, stop=1938),
        shape_weight=3.0,
        text_weight=0.5,
        shared_heads=True,
        patch_weight=1.0,
        unnamed=0.35,
    ),
    ClipPhase(
        _adamw(900, 64, 5e-4, warmup=20, ema=0.997),
        shape_weight=3.0,
        text_weight=0.5,
        shared_heads=True,
        patch_weight=1.0,
        unnamed=0.35,
    ),
)
PRIOR_PHASE = PriorPhase(_training(400, 128, 2e-3, warmup=30, weight_decay=0.01, ema=0.995))
DECODER_PHASES = (
    # What the canvases show, before there is a UNet to lean on them.
    DecoderPhase(_training(1000, 128, 2e-3, warmup=30, weight_decay=0.01, ema=0.98), objective="shapes-canvases"),
    DecoderPhase(_training(5200, 48, 1.2e-3, warmup=50, weight_decay=0.01, ema=0.998)),
    # The canvases now hold nearly every shape rightly; the UNet blurs them, as their boxes are 2 px off.
    DecoderPhase(
        _training(3000, 48, 1e-3, warmup=100, weight_decay=0.01, ema=0.998),
        true_boxes=0.8,
        freeze_boxes=True,
        unnamed=0.35,
    ),
    # More colours without a name: pairs that are held out still took the shape of a neighbour.
    DecoderPhase(
        _training(2200, 48, 1e-3, warmup=50, weight_decay=0.01, ema=0.998),
        true_boxes=0.8,
        freeze_boxes=True,
        unnamed=0.5,
    ),
    DecoderPhase(
        _training(1000, 48, 6e-4, warmup=50, weight_decay=0.01, ema=0.998),
        true_boxes=0.8,
        freeze_boxes=True,
        unnamed=0.5,
        embed_noise=0.3,
    ),
)
UPSAMPLER_PHASE = UpsamplerPhase(_training(2000, 16, 1.5e-3, warmup=50, weight_decay=0.0, ema=0.995))
SECOND_UPSAMPLER_PHASE = UpsamplerPhase(
    _training(800, 16, 5e-4, warmup=20, weight_decay=0.0, ema=0.99), size=1024, bsr=True
)
PHASES = {
    "clip": CLIP_PHASES,
    "prior": (PRIOR_PHASE,),
    "decoder": DECODER_PHASES,
    "upsampler": (UPSAMPLER_PHASE,),
    "second_upsampler": (SECOND_UPSAMPLER_PHASE,),
}
"""The phases of each stage, in the order of training."""
