"""Exit codes, and errors in a sentence."""

import argparse
import sys
from collections.abc import Callable

Commands = argparse._SubParsersAction
"""Where a sub-command is added."""


def said(call: Callable[[], object]) -> int:
    """Run `call`; what a user can set right is said in a sentence, with exit code 1, or 130 if interrupted.

    A `call` that returns a number gives the exit code itself; one that returns False has said itself what does not
    hold, which is exit code 1.
    """
    try:
        result = call()
    except KeyboardInterrupt:
        print("unclip: interrupted.", file=sys.stderr)
        return 130
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"unclip: {error}", file=sys.stderr)
        return 1
    return result if type(result) is int else int(result is False)
