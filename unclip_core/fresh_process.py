"""Measurements in a Python process of their own, which prints what it found as JSON in its last line."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

SHOWN = 2000
"""Letters of what a failed process said last."""


class FailedProcess(ValueError):
    """A process failed; the message ends with what it said."""


def ask(name: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Any:
    """Run Python with some arguments and return what it prints as JSON in its last line.

    Args:
        name: what is measured, as the first words of an error.
        arguments: such as ["-m", "a.module"]; modules are found where this process finds them.
        environment: variables beside this process's own.

    Raises:
        FailedProcess: it ended with an exit code, or said nothing that can be read.
    """
    found = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **(environment or {})}
    done = subprocess.run([sys.executable, *arguments], env=found, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FailedProcess(f"{name} failed with exit code {done.returncode}: {done.stderr[-SHOWN:].strip()}")
    try:
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise FailedProcess(f"{name} said nothing that can be read, but {done.stdout[-SHOWN:].strip()!r}") from error
