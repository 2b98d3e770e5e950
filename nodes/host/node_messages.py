"""Messages to the user: on the node, in the log, and in the outputs that API clients read.

A node hands its words to ComfyUI beside its result, as `ui`: `text` is for everyone, `warnings` too, `notes` are for
the canvas alone. `web/js/words.js` draws them. A node class that says something sets `HAS_INTERMEDIATE_OUTPUT`: ComfyUI
then resends the words when it takes the node from its cache.

The keys of a node's `ui` are the same in every run, with an empty list where there is nothing to say: of a node that is
run over a list ComfyUI joins the lists key by key, by the keys of the first run.
"""

import logging
from collections.abc import Sequence
from typing import Any

log = logging.getLogger("unclip")


def with_text(result: tuple[Any, ...], text: str, warnings: Sequence[str] = ()) -> dict[str, Any]:
    """Return a node's `result` with a `text`, which is shown on the node and sent to API clients.

    Args:
        warnings: sent beside the text, and logged; on the node, lines of the text that are warnings stand out.
    """
    return {"ui": {"text": [text], "warnings": _logged(warnings)}, "result": result}


def with_warnings(result: tuple[Any, ...], warnings: Sequence[str], all_well: str) -> dict[str, Any]:
    """Return a node's `result` with its `warnings`, which are shown on the node, logged, and sent to API clients.

    Args:
        all_well: shown where there are none, so that the warning of an earlier run does not stay on the node.
    """
    told = _logged(warnings)
    return {"ui": {"warnings": told, "notes": [] if told else [all_well]}, "result": result}


def _logged(warnings: Sequence[str]) -> list[str]:
    for warning in warnings:
        log.warning(warning)
    return list(warnings)
