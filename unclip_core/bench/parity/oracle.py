"""diffusers' own unCLIP pipeline with small random networks: the reference. Needs diffusers and transformers."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...clip.tokenizer import ClipTokenizer, byte_vocabulary, write_tokenizer

MERGES = [("c", "a"), ("ca", "t</w>"), ("r", "e"), ("re", "d</w>"), ("t", "h"), ("th", "e</w>")]

OUTPUT_SCALE = 0.3
"""Of the random decoders: guidance of 8 then makes an epsilon of deviation 1, near enough."""


@dataclass(frozen=True)
class Shape:
    """Shape of a small Karlo; `levels` says which levels of the decoder attend."""

    name: str
    embed_dim: int
    context: int
    text_layers: int
    prior: tuple[int, int, int]  # heads, head width, layers
    channels: tuple[int, ...]
    levels: tuple[bool, ...]
    blocks: int
    head_dim: int
    groups: int
    context_dim: int
    extra_tokens: int
    image_size: int
    super_channels: tuple[int, ...]
    super_blocks: int
    super_size: int
    super_groups: int
    patch: int = 8
    vision_size: int = 32
    activation: str = "quick_gelu"


SHAPES = (
    Shape("two levels", 16, 77, 2, (2, 16, 2), (32, 64), (False, True), 1, 16, 8, 24, 4, 8, (32, 64), 1, 32, 8),
    Shape(
        "three levels, other heads",
        24,
        20,
        3,
        (4, 8, 3),
        (16, 32, 48),
        (False, True, True),
        2,
        8,
        8,
        40,
        3,
        16,
        (32, 48),
        2,
        32,
        16,
        patch=7,
        vision_size=28,
        activation="gelu",
    ),
    Shape(
        "Karlo's four levels",
        16,
        77,
        2,
        (2, 32, 2),
        (32, 32, 64, 96),
        (False, True, True, True),
        3,
        32,
        32,
        48,
        4,
        16,
        (32, 32, 64, 64),
        3,
        32,
        32,
    ),
)
"""Three that differ in depth, widths, head widths, groups, tokens, sizes and activation."""


class MissingOracle(ValueError):
    """diffusers or transformers is not installed."""


def check_installed() -> None:
    """Raises MissingOracle where the reference is not installed."""
    try:
        import diffusers  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingOracle(
            f"The comparison needs diffusers and transformers ({error}): pip install diffusers transformers"
        ) from error


def randomise(net: nn.Module, seed: int) -> nn.Module:
    """Make every parameter random, those that start at zero or one too, which would hide errors; in eval mode."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in net.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            around_one = value.ndim == 1 and "norm" in name and name.endswith("weight")
            scale = 0.1 if value.ndim < 2 else value[0].numel() ** -0.5
            value.copy_(scale * noise + (1.0 if around_one else 0.0))
        for name in ("clip_mean", "clip_std"):
            if hasattr(net, name):
                getattr(net, name).copy_(torch.randn(net.clip_mean.shape, generator=generator).abs() * 0.3 + 0.5)
    return net.eval()


def calm(decoder: nn.Module) -> None:
    """Scale a random decoder's output layer to what guidance expects of a trained one.

    Trained, the two rows of guidance differ by little: eight times that leaves an epsilon of deviation 1. Random ones
    differ as much as two images do, and eight times that magnifies rounding errors in every step, until whole images
    depend on the CPU. Their variance channels would also leave -1..1, which no trained net's do.
    """
    with torch.no_grad():
        for value in decoder.conv_out.parameters():
            value.mul_(OUTPUT_SCALE)


def tokenizer_of(shape: Shape, conventions: str = "native") -> ClipTokenizer:
    """A tokenizer of 520 tokens, made of bytes and a few pairs."""
    return ClipTokenizer(byte_vocabulary(MERGES), MERGES, shape.context, pad="!", conventions=conventions)


def components(shape: Shape, folder: Path, seed: int = 0) -> dict[str, Any]:
    """diffusers' components of that shape, random; `folder` takes the tokenizer's files."""
    from transformers import CLIPImageProcessor, CLIPTextModelWithProjection, CLIPTokenizer
    from transformers import CLIPVisionModelWithProjection as Vision

    write_tokenizer(tokenizer_of(shape), folder / "oracle-tokenizer")
    parts = {
        "text_encoder": CLIPTextModelWithProjection(text_config(shape)),
        "image_encoder": Vision(vision_config(shape)),
        "prior": prior_net(shape),
        "text_proj": _text_proj(shape),
        "decoder": _decoder(shape),
        "super_res_first": _super_res(shape),
        "super_res_last": _super_res(shape),
    }
    parts = {name: randomise(net, seed + number) for number, (name, net) in enumerate(parts.items())}
    calm(parts["decoder"])
    side = {"height": shape.vision_size, "width": shape.vision_size}
    parts["tokenizer"] = CLIPTokenizer.from_pretrained(folder / "oracle-tokenizer", model_max_length=shape.context)
    parts["feature_extractor"] = CLIPImageProcessor(size={"shortest_edge": shape.vision_size}, crop_size=side)
    return parts | schedulers()


def schedulers() -> dict[str, Any]:
    """Return the schedulers of Karlo's three stages."""
    from diffusers import UnCLIPScheduler as Scheduler

    return {
        "prior_scheduler": Scheduler(variance_type="fixed_small_log", prediction_type="sample", clip_sample_range=5.0),
        "decoder_scheduler": Scheduler(variance_type="learned_range", prediction_type="epsilon", clip_sample_range=1.0),
        "super_res_scheduler": Scheduler(variance_type="fixed_small_log", clip_sample_range=1.0),
    }


VARIATION = ("image_encoder", "feature_extractor")
PRIOR_ONLY = ("prior", "prior_scheduler")


def text_pipeline(parts: dict[str, Any]) -> Any:
    """diffusers' text-to-image pipeline."""
    from diffusers.pipelines.deprecated.unclip import UnCLIPPipeline

    return quiet(UnCLIPPipeline(**{name: part for name, part in parts.items() if name not in VARIATION}))


def variation_pipeline(parts: dict[str, Any]) -> Any:
    """diffusers' image-variation pipeline."""
    from diffusers.pipelines.deprecated.unclip import UnCLIPImageVariationPipeline

    return quiet(UnCLIPImageVariationPipeline(**{k: part for k, part in parts.items() if k not in PRIOR_ONLY}))


@contextmanager
def one_step_defined(parts: dict[str, Any]) -> Iterator[None]:
    """Let the schedulers take one step, from the last timestep to x0, where diffusers divides by zero."""
    owners = [part for name, part in parts.items() if name.endswith("_scheduler")]
    with ExitStack() as patches:
        for owner in owners:
            patches.enter_context(_patched(owner, "set_timesteps", _or_last(owner, owner.set_timesteps)))
            patches.enter_context(_patched(owner, "step", _or_clean(owner, owner.step)))
        yield


@contextmanager
def _patched(owner: Any, name: str, by: Any) -> Iterator[None]:
    """Set an attribute of the instance, and put back what it was."""
    before = owner.__dict__.get(name)
    setattr(owner, name, by)
    try:
        yield
    finally:
        if before is None:
            delattr(owner, name)
        else:
            setattr(owner, name, before)


def _or_clean(owner: Any, original: Any) -> Any:
    def step(*args: Any, **kwargs: Any) -> Any:
        if len(owner.timesteps) > 1:
            return original(*args, **kwargs)
        result = original(*args, **{**kwargs, "generator": torch.Generator()})
        return type(result)(prev_sample=result.pred_original_sample)

    return step


def _or_last(owner: Any, original: Any) -> Any:
    def set_timesteps(count: int, device: Any = None) -> None:
        if count > 1:
            original(count, device=device)
        else:
            owner.timesteps = torch.tensor([owner.config.num_train_timesteps - 1])

    return set_timesteps


@contextmanager
def last_states(*owners: Any) -> Iterator[list[Tensor]]:
    """Record what each scheduler's last step returned."""
    found: list[Tensor] = [torch.empty(0)] * len(owners)
    with ExitStack() as patches:
        for number, owner in enumerate(owners):
            patches.enter_context(_patched(owner, "step", _recording(owner.step, found, number)))
        yield found


def _recording(step: Any, found: list[Tensor], number: int) -> Any:
    def recorded(*args: Any, **kwargs: Any) -> Any:
        result = step(*args, **kwargs)
        found[number] = result.prev_sample
        return result

    return recorded


def quiet(pipeline: Any) -> Any:
    """The pipeline, without its progress bar."""
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def text_config(shape: Shape) -> Any:
    """transformers' configuration of the text encoder."""
    from transformers import CLIPTextConfig

    count = len(byte_vocabulary(MERGES))
    return CLIPTextConfig(
        vocab_size=count,
        hidden_size=shape.embed_dim,
        intermediate_size=2 * shape.embed_dim,
        num_attention_heads=2,
        projection_dim=shape.embed_dim,
        num_hidden_layers=shape.text_layers,
        hidden_act=shape.activation,
        max_position_embeddings=shape.context,
        bos_token_id=count - 2,
        eos_token_id=count - 1,
        pad_token_id=0,
    )


def vision_config(shape: Shape) -> Any:
    """transformers' configuration of the image encoder."""
    from transformers import CLIPVisionConfig

    return CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=48,
        projection_dim=shape.embed_dim,
        num_hidden_layers=2,
        num_attention_heads=4,
        image_size=shape.vision_size,
        patch_size=shape.patch,
        hidden_act=shape.activation,
    )


def prior_net(shape: Shape) -> Any:
    """diffusers' prior, its statistics zero."""
    from diffusers import PriorTransformer

    heads, width, layers = shape.prior
    return PriorTransformer(
        num_attention_heads=heads,
        attention_head_dim=width,
        num_layers=layers,
        embedding_dim=shape.embed_dim,
        num_embeddings=shape.context,
    )


def _text_proj(shape: Shape) -> Any:
    from diffusers.pipelines.deprecated.unclip.text_proj import UnCLIPTextProjModel

    return UnCLIPTextProjModel(
        clip_extra_context_tokens=shape.extra_tokens,
        clip_embeddings_dim=shape.embed_dim,
        time_embed_dim=4 * shape.channels[0],
        cross_attention_dim=shape.context_dim,
    )


def _decoder(shape: Shape) -> Any:
    from diffusers import UNet2DConditionModel

    down = ["SimpleCrossAttnDownBlock2D" if on else "ResnetDownsampleBlock2D" for on in shape.levels]
    up = ["SimpleCrossAttnUpBlock2D" if on else "ResnetUpsampleBlock2D" for on in reversed(shape.levels)]
    return UNet2DConditionModel(
        sample_size=shape.image_size,
        in_channels=3,
        out_channels=6,
        block_out_channels=shape.channels,
        down_block_types=down,
        up_block_types=up,
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        layers_per_block=shape.blocks,
        cross_attention_dim=shape.context_dim,
        attention_head_dim=shape.head_dim,
        norm_num_groups=shape.groups,
        resnet_time_scale_shift="scale_shift",
        class_embed_type="identity",
    )


def _super_res(shape: Shape) -> Any:
    from diffusers import UNet2DModel

    count = len(shape.super_channels)
    return UNet2DModel(
        sample_size=shape.super_size,
        in_channels=6,
        out_channels=3,
        block_out_channels=shape.super_channels,
        down_block_types=("ResnetDownsampleBlock2D",) * count,
        up_block_types=("ResnetUpsampleBlock2D",) * count,
        layers_per_block=shape.super_blocks,
        norm_num_groups=shape.super_groups,
        add_attention=False,
    )
