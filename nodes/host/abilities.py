"""Which version of ComfyUI this is, and which optional features it has."""

import importlib
import logging
import sys

log = logging.getLogger("unclip")

OPTIONAL = {
    "memory management": ("comfy.model_patcher", "ModelPatcher"),
    "live previews": ("latent_preview", "LatentPreviewMethod"),
}
"""What the pack can do without, and the module and name of ComfyUI that give it."""


def in_comfyui() -> bool:
    """Whether a ComfyUI runs in this process; it is not imported to find out, which fails without a GPU."""
    return "comfy.model_management" in sys.modules and "folder_paths" in sys.modules


def has(ability: str) -> bool:
    """Whether this ComfyUI has an ability of `OPTIONAL`; never without ComfyUI."""
    module, name = OPTIONAL[ability]
    if not in_comfyui():
        return False
    try:
        return hasattr(importlib.import_module(module), name)
    except ImportError:
        return False


def announce() -> None:
    """Say in one line of the log which ComfyUI was found and what it lacks; nothing without ComfyUI."""
    if not in_comfyui():
        return
    lacking = [ability for ability in OPTIONAL if not has(ability)]
    without = f", without {' and '.join(lacking)}, which it lacks" if lacking else ""
    log.info("unCLIP runs in ComfyUI %s%s.", version(), without)


def version() -> str:
    """ComfyUI's version, as it states it since 0.3.13."""
    try:
        return str(importlib.import_module("comfyui_version").__version__)
    except (ImportError, AttributeError):
        return "of an unknown version"
