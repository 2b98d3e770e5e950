"""Read kakaobrain's own Karlo files in one folder, told apart by their keys, never by their names.

`prior-ckpt….ckpt`, `decoder-ckpt….ckpt`, `improved-sr-ckpt….ckpt`, `ViT-L-14.pt` (OpenAI's TorchScript archive) and
`ViT-L-14_stats.th`; hyper-parameters from their YAML files beside them, or else from the shapes.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...clip.image_input import ImageInput
from ...clip.tokenizer import openai_tokenizer
from ...clip.tower_adapter import TowerAdapter
from ...diffusion.spec import DiffusionSpec
from ...listing import visible
from ...models import PARTS, Decoder, Prior, Upsampler
from ...nets.clip_towers import TextTower, VisionTower
from ...nets.decoder import DecoderNet
from ...nets.prior import PriorTransformer
from ...nets.upsampler import UpsamplerNet
from ...weights.config_checks import refused
from ...weights.files import CheckpointError
from ...weights.meta_init import meta_init
from ...weights.net_weights import load_net
from ...weights.tensors import PICKLES, Tensors, in_memory, load_pickle, open_file
from ...weights.torch_archive import is_torchscript, open_torchscript
from ...weights.weak_cached_property import weak_cached_property
from ..statistics import STATISTICS, check_statistics
from . import kakao_names as names
from . import kakao_params as params_of
from .shared import NATIVE_PRIOR_CLIP, KarloParts, family_of

SCALE = 4
_SIGNATURES = {
    "prior": ("model.prd_emb",),
    "decoder": ("model.cf_param",),
    "clip": ("token_embedding.weight", "visual.proj"),
    "super_res": ("model_first_steps.out.2.weight", "model_last_step.out.2.weight"),
}
_NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "logit_scale")


def weight_files(folder: Path) -> dict[str, Path]:
    """Find Karlo's files in `folder` by what they hold: "prior", "decoder", "super_res", "clip", "stats".

    Links to nothing and folders with a weight file's name are passed over.

    Raises:
        CheckpointError: a file is damaged, or two hold the same.
    """
    found: dict[str, Path] = {}
    for path in visible(folder):
        if path.suffix not in (*PICKLES, ".safetensors") or not path.is_file():
            continue
        if (kind := _kind(path)) is None:
            continue
        if kind in found:
            raise CheckpointError(f"'{found[kind]}' and '{path}' both hold Karlo's {kind}: leave only one there.")
        found[kind] = path
    return found


class KakaoFolder(KarloParts):
    """A folder of such files. Parts are read one by one; a missing part is an error only when it is asked for."""

    def __init__(self, folder: Path, dtype: torch.dtype, conventions: str) -> None:
        """Look which files there are. Raises CheckpointError where none of them says the family."""
        self.folder, self.dtype, self.conventions = folder, dtype, conventions
        self.files = weight_files(folder)
        self.settings = params_of.read_settings(folder)
        self.family = family_of(self._embed_dim())
        self.parts = frozenset({"super_res": "upsampler"}.get(kind, kind) for kind in self.files) & frozenset(PARTS)

    def prior(self) -> Prior:
        """Read the prior, with the statistics of CLIP's embeddings."""
        source = self._tensors("prior")
        with refused(f"'{source.source}'"):
            params = params_of.prior(source, self._settings("prior"), self.compatible)
        statistics = dict(zip(STATISTICS, self._statistics(params.embed_dim), strict=True))
        net = load_net(
            lambda: PriorTransformer(params),
            names.prior_key_map(params.head_dim),
            source.only(lambda key: True, statistics),
            self.dtype,
            keep=STATISTICS,
        )
        check_statistics(net, self._file("stats"))
        return self._prior(net, self.diffusion("prior"))

    def decoder(self) -> Decoder:
        """Read the decoder with its text projection."""
        source = self._tensors("decoder")
        with refused(f"'{source.source}'"):
            params = params_of.decoder(source, self._settings("decoder"))
        with meta_init():
            net = DecoderNet(params)
        own = {names.conditioner_key_map(key).key for key in net.conditioner.state_dict()}
        load_net(lambda: net.conditioner, names.conditioner_key_map, source.only(own.__contains__), self.dtype)
        load_net(
            lambda: net.unet,
            names.unet_key_map(params.unet, "model."),
            source.only(lambda key: key not in own),
            self.dtype,
        )
        return self._decoder(net, self.diffusion("decoder"))

    def upsampler(self) -> Upsampler:
        """Read both super-resolution nets."""
        source, nets = self._tensors("super_res"), []
        for prefix in ("model_first_steps.", "model_last_step."):
            half = source.only(_starting_with(prefix))
            with refused(f"'{source.source}'"):
                params = params_of.unet(half, prefix, self._settings("super_res"))
            with meta_init():
                net = UpsamplerNet(params)
            load_net(partial(getattr, net, "unet"), names.unet_key_map(params, prefix), half, self.dtype)
            nets.append(net)
        return self._upsampler(nets[0], nets[1], self.diffusion("super_res"), SCALE)

    def check(self) -> None:
        """Do nothing more: the files were detected by their keys, and each is checked as it is read."""

    def diffusion(self, name: str) -> DiffusionSpec:
        """Return the diffusion of "prior", "decoder" or "super_res"."""
        with refused(f"The YAML file of Karlo's {name} in '{self.folder}'"):
            return params_of.diffusion(name, self._settings(name), self.compatible, NATIVE_PRIOR_CLIP)

    def _settings(self, name: str) -> params_of.KakaoSettings:
        return self.settings.get(name, params_of.KakaoSettings())

    @weak_cached_property
    def _clip(self) -> TowerAdapter:
        source = self._tensors("clip").only(lambda key: key not in _NOT_WEIGHTS)
        with refused(f"'{source.source}'"):
            text_params, vision_params = params_of.towers(source)
        text = load_net(
            lambda: TextTower(text_params),
            names.openai_key_map(names.OPENAI_TEXT),
            source.only(lambda key: not key.startswith("visual.")),
            torch.float32,
        )
        vision = load_net(
            lambda: VisionTower(vision_params),
            names.openai_key_map(names.OPENAI_VISION),
            source.only(lambda key: key.startswith("visual.")),
            torch.float32,
        )
        side = vision_params.image_size
        images = ImageInput(side, side if self.compatible else None)
        tokenizer = openai_tokenizer(text_params.context, self.conventions)
        if len(tokenizer.vocabulary) != text_params.vocabulary:
            raise CheckpointError(
                f"'{source.source}' knows {text_params.vocabulary:,} tokens, OpenAI's vocabulary "
                f"has {len(tokenizer.vocabulary):,}: it is no CLIP of OpenAI."
            )
        return TowerAdapter(text, vision, tokenizer, images, str(self.folder))

    def _statistics(self, embed_dim: int) -> tuple[Tensor, Tensor]:
        path = self._file("stats")
        if _kind(path) != "stats":
            raise CheckpointError(f"'{path}' holds no statistics any more.")
        mean, std = load_pickle(path)
        if mean.shape != (embed_dim,) or std.shape != (embed_dim,):
            raise CheckpointError(
                f"'{path}' holds statistics of shapes {list(mean.shape)} and {list(std.shape)}, "
                f"the prior needs {[embed_dim]}."
            )
        return mean[None], std[None]

    def _embed_dim(self) -> int:
        for kind, key, axis in (
            ("prior", "model.out_proj.weight", 0),
            ("decoder", "model.cf_param", 0),
            ("clip", "text_projection", 1),
        ):
            shape = self._tensors(kind).shapes.get(key, ()) if kind in self.files else ()
            if len(shape) > axis:
                return shape[axis]
        raise CheckpointError(f"'{self.folder}' holds neither Karlo's prior nor its decoder nor its CLIP.")

    def _tensors(self, kind: str) -> Tensors:
        path = self._file(kind)
        return _open_archive(path) if is_torchscript(path) else open_file(path)

    def _file(self, kind: str) -> Path:
        if kind not in self.files:
            raise CheckpointError(f"'{self.folder}' holds no file with Karlo's {kind}; it holds {sorted(self.files)}.")
        return self.files[kind]


def _starting_with(prefix: str) -> Callable[[str], bool]:
    return lambda key: key.startswith(prefix)


def _open_archive(path: Path) -> Tensors:
    return in_memory(path, open_torchscript(path))


def _kind(path: Path) -> str | None:
    """Tell what a file holds, by its keys; None where it is nothing of Karlo's."""
    if path.suffix != ".safetensors" and not is_torchscript(path):
        held: Any = load_pickle(path)
        if isinstance(held, list | tuple):
            pair = len(held) == 2 and all(isinstance(item, Tensor) and item.ndim == 1 for item in held)
            return "stats" if pair else None
    keys = (_open_archive(path) if is_torchscript(path) else open_file(path)).shapes
    return next((kind for kind, needed in _SIGNATURES.items() if all(key in keys for key in needed)), None)
