"""Messages to the user: on the node, in the log, and in the outputs that API clients read."""

import logging
from collections.abc import Sequence
from typing import Any

from .abilities import has

log = logging.getLogger("unclip")


def notify(warnings: Sequence[str], all_well: str) -> None:
    """Show `warnings`, or `all_well` if there are none, on the node that runs, below its widgets.

    Call it on every run: the canvas keeps what it was last told. The warnings go to the log too.
    """
    for warning in warnings:
        log.warning(warning)
    show("\n".join(warnings) or all_well)


def show(text: str) -> None:
    """Show `text` on the node that runs, below its widgets; the canvas keeps it until it is told another.

    A run that was queued without a client has no canvas: its texts would go to every open one, onto whatever node has
    that number there.
    """
    if not has("warnings on the node"):
        return
    from comfy_execution.utils import get_executing_context
    from server import PromptServer

    # The context knows the node. A hidden UNIQUE_ID does too, but would tie the cache to the node's number.
    context = get_executing_context()
    server = getattr(PromptServer, "instance", None)
    client = getattr(server, "client_id", None)
    if context is not None and client is not None and hasattr(server, "send_progress_text"):
        server.send_progress_text(text, context.node_id, client)


def with_text(result: tuple[Any, ...], text: str, warnings: Sequence[str] = ()) -> dict[str, Any]:
    """Return a node's `result` with a `text`, which is shown on the node and sent to API clients.

    Args:
        warnings: sent beside the text, and logged.

    A node class that returns it sets `HAS_INTERMEDIATE_OUTPUT`, see `with_warnings`.
    """
    for warning in warnings:
        log.warning(warning)
    show(text)
    told = {"warnings": list(warnings)} if warnings else {}
    return {"ui": {"text": [text], **told}, "result": result}


def with_warnings(result: tuple[Any, ...], warnings: Sequence[str]) -> tuple[Any, ...] | dict[str, Any]:
    """Return a node's `result` with its `warnings` for API clients.

    A node class that returns it sets `HAS_INTERMEDIATE_OUTPUT`: ComfyUI then resends the warnings when it takes the
    node from its cache.
    """
    return {"ui": {"warnings": list(warnings)}, "result": result} if warnings else result
