"""The host: the only file that touches ComfyUI, and what stands in for it where there is none.

Every import of ComfyUI sits inside a function behind `in_comfyui()`. Without ComfyUI the same functions work
with plain torch (devices), tqdm (progress) and the log (warnings), so that every node runs headless.
"""

import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from ..unclip_core.samplers import StepInfo
from . import defaults
from .images import tile
from .inputs import InputError
from .sockets import Part, PartValue

FOLDER_KEY = "unclip"
"""The key of the model folder in ComfyUI's `extra_model_paths.yaml`, and its name under `models/`."""

FOLDER_VARIABLE = "UNCLIP_MODELS"
"""Without ComfyUI: the environment variable with the folders to look for models in."""

INDEX_FILE = "model_index.json"
PREVIEWED = 16
PREVIEW_SIDE = 512

log = logging.getLogger("unclip")

OnStep = Callable[[StepInfo], None]
Run = Callable[[slice, OnStep], Tensor]


def in_comfyui() -> bool:
    """Whether a ComfyUI runs in this process; it is not imported to find out, which fails without a GPU."""
    return "comfy.model_management" in sys.modules and "folder_paths" in sys.modules


# ---- model folders ----


def register_model_folder() -> None:
    """Add `models/unclip` to ComfyUI's model folders, behind those of `extra_model_paths.yaml`."""
    if in_comfyui():
        import folder_paths

        folder_paths.add_model_folder_path(FOLDER_KEY, os.path.join(folder_paths.models_dir, FOLDER_KEY))


def model_names() -> list[str]:
    """The bundled model first, then every model folder found, relative, with `/` on every system."""
    names = {name for root in _model_roots() for name in _models_below(root)}
    return [defaults.MODEL, *sorted(names - {defaults.MODEL})]


def model_path(name: str) -> str | None:
    """The folder of the model that is listed as `name`; None for the bundled one.

    Raises:
        InputError: no listed model has that name (anymore); the message says which there are.
    """
    if name == defaults.MODEL:
        return None
    for root in _model_roots():
        if name in _models_below(root):
            return os.path.join(root, *name.split("/"))
    raise InputError(f"There is no model {name!r}. There are: {', '.join(model_names())}.")


def _model_roots() -> list[str]:
    if in_comfyui():
        import folder_paths

        register_model_folder()
        return folder_paths.get_folder_paths(FOLDER_KEY)
    return [root for root in os.environ.get(FOLDER_VARIABLE, "").split(os.pathsep) if root]


def _models_below(root: str) -> Iterator[str]:
    seen = set()
    for folder, below, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen or INDEX_FILE in files:
            below.clear()  # a link back up, or a model: what lies below belongs to it
        if INDEX_FILE in files and real not in seen:
            yield os.path.relpath(folder, root).replace(os.sep, "/")
        seen.add(real)


# ---- devices and memory ----


def device() -> torch.device:
    """Where the networks run."""
    if in_comfyui():
        from comfy import model_management

        return model_management.get_torch_device()
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def intermediate_device() -> torch.device:
    """Where what travels on the sockets is kept."""
    if in_comfyui():
        from comfy import model_management

        return model_management.intermediate_device()
    return torch.device("cpu")


def manage(part: Part) -> PartValue[Part]:
    """Wrap a core part for the sockets; in ComfyUI its network is put under ComfyUI's memory management."""
    if not in_comfyui():
        return PartValue(part)
    from comfy import model_management, model_patcher

    # Through the module, at call time: ComfyUI swaps the class at start where it can load dynamically.
    patcher = model_patcher.CoreModelPatcher(
        part.module, load_device=device(), offload_device=model_management.unet_offload_device()
    )
    return PartValue(part, patcher)


def load(value: PartValue[Part]) -> Part:
    """The core part of `value`, with all of its network on `device()`."""
    if value.patcher is not None:
        from comfy import model_management

        # In full: under partial loading plain torch layers would stay on the CPU unnoticed.
        model_management.load_models_gpu([value.patcher], force_full_load=True)
    # ComfyUI ignores `force_full_load` under --novram; where it has done its work this moves nothing.
    value.part.module.to(device())
    return value.part


def is_out_of_memory(error: Exception) -> bool:
    """Whether `error` says that the accelerator's memory is used up."""
    if in_comfyui():
        from comfy import model_management

        return model_management.is_oom(error)
    return isinstance(error, torch.OutOfMemoryError)


def free_cache() -> None:
    """Give unused memory back to the accelerator."""
    if in_comfyui():
        from comfy import model_management

        model_management.soft_empty_cache()
    elif torch.cuda.is_available():
        torch.cuda.empty_cache()


def in_turns(run: Run, count: int, at_once: int, steps: int, title: str) -> Tensor:
    """`run(rows, on_step)` over `count` samples, `at_once` of them at a time, fewer where memory runs out.

    `run` returns the results `[n, …]` of its `rows` and calls `on_step` `steps` times. The results, on the
    intermediate device, are joined to `[count, …]`. Each sample has its own seed: turns do not change them.
    """
    size = min(count, at_once)
    while True:
        result = _one_attempt(run, count, size, steps, title)
        if result is not None:
            return result
        free_cache()
        size = math.ceil(size / 2)
        log.warning("%s: out of memory, trying again with %d at a time.", title, size)


def _one_attempt(run: Run, count: int, size: int, steps: int, title: str) -> Tensor | None:
    starts = range(0, count, size)
    try:
        with progress(steps * len(starts), title) as bar:
            turns = [run(slice(start, min(start + size, count)), bar) for start in starts]
            return torch.cat([turn.to(intermediate_device()) for turn in turns])
    except Exception as error:
        if size == 1 or not is_out_of_memory(error):
            raise
    return None


# ---- progress, preview, interrupt ----


def check_interrupt() -> None:
    """Stop here if the user has asked ComfyUI to (by its InterruptProcessingException, a BaseException)."""
    if in_comfyui():
        from comfy import model_management

        model_management.throw_exception_if_processing_interrupted()


class Progress:
    """A bar that counts steps, shows a preview of pictures, and stops when the user interrupts.

    Used as a context, and called with a `StepInfo` after each step: it is the `on_step` of the core.
    """

    def __init__(self, total: int, title: str) -> None:
        self.total = total
        self.title = title
        self.done = 0

    def __enter__(self) -> "Progress":
        check_interrupt()
        self._open()
        return self

    def __call__(self, info: StepInfo) -> None:
        """Count a step; `info.x0` is previewed if it is a batch of pictures."""
        check_interrupt()
        self.done += 1
        self._show(info.x0)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _open(self) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=self.total, desc=self.title, disable=None, leave=False)

    def _show(self, x0: Tensor) -> None:
        self._bar.update(1)

    def _close(self) -> None:
        self._bar.close()


class ComfyProgress(Progress):
    """The same on the canvas: the node's own bar and, unless previews are off, its preview."""

    def _open(self) -> None:
        from comfy.utils import ProgressBar

        self._bar = ProgressBar(self.total)

    def _show(self, x0: Tensor) -> None:
        preview = None
        if wants_preview() and x0.ndim == 4:  # embeddings have no picture
            preview = ("JPEG", preview_image(x0), PREVIEW_SIDE)
        self._bar.update_absolute(self.done, self.total, preview)

    def _close(self) -> None:
        """ComfyUI ends the bar with the node."""


def progress(total: int, title: str) -> Progress:
    """A bar of `total` steps under the name `title`, on the canvas or the terminal."""
    return ComfyProgress(total, title) if in_comfyui() else Progress(total, title)


def wants_preview() -> bool:
    """Whether ComfyUI's preview method is other than none; it can change from one prompt to the next."""
    import latent_preview

    return latent_preview.args.preview_method != latent_preview.LatentPreviewMethod.NoPreviews


def preview_image(x0: Tensor) -> Any:
    """The first pictures of `x0` `[B, 3, H, W]` in -1..1, side by side, as a PIL image."""
    from PIL import Image

    pictures = (x0[:PREVIEWED].detach().float().cpu().movedim(1, -1) + 1) / 2
    levels = (tile(pictures.clamp(0, 1))[0] * 255).round().to(torch.uint8)
    return Image.fromarray(levels.numpy())


# ---- words to the user ----


def notify(warnings: Sequence[str], all_well: str) -> None:
    """Show `warnings`, or `all_well` if there are none, on the node that runs, below its widgets.

    Call it on every run: the canvas keeps what it was last told. The warnings go to the log too.
    """
    for warning in warnings:
        log.warning(warning)
    if not in_comfyui():
        return
    from comfy_execution.utils import get_executing_context
    from server import PromptServer

    # The context knows the node. A hidden UNIQUE_ID does too, but would tie the cache to the node's number.
    context = get_executing_context()
    server = getattr(PromptServer, "instance", None)
    if context is not None and server is not None:
        server.send_progress_text("\n".join(warnings) or all_well, context.node_id, server.client_id)


def with_warnings(result: tuple[Any, ...], warnings: Sequence[str]) -> tuple[Any, ...] | dict[str, Any]:
    """A node's return value, with its `warnings` beside the `result` for those who come over the API."""
    return {"ui": {"warnings": list(warnings)}, "result": result} if warnings else result
