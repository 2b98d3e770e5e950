"""ComfyUI's door to the pack.

The nodes, and torch with them, are imported once somebody asks for them, as ComfyUI does: the command, the processes
that it starts and the workers of `unclip map` come through here, too, and have no use for them.
"""

from typing import Any

NODE_CLASS_MAPPINGS: dict[str, type]
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str]
WEB_DIRECTORY = "./nodes/web"

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS", "WEB_DIRECTORY"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    try:
        from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
    except AttributeError as error:  # which `hasattr` would take for a pack without nodes
        raise ImportError(f"the nodes cannot be imported: {error}") from error
    globals().update(NODE_CLASS_MAPPINGS=NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS=NODE_DISPLAY_NAME_MAPPINGS)
    return globals()[name]
