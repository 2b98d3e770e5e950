"""What a training is going to do, in words."""

import json
from pathlib import Path
from typing import Any

from ..data.samples import Collection
from ..weights.computing import describe_dtype
from ..weights.files import DTYPES
from .config import Config
from .targets import Target


def description(
    stage: str, config: Config, collection: Collection, target: Target, folder: Path, accelerator: Any
) -> str:
    """What a training is going to do, as it is said at its start."""
    count, trained = (
        sum(p.numel() for p in target.net.parameters() if p.requires_grad or frozen) for frozen in (True, False)
    )
    training = config.training
    times = f", {training.steps * training.batch / len(collection):.1f} times each" if training.steps else ""
    limit = f" For at most {training.minutes:g} minutes." if training.minutes else ""
    asked, place = training.precision, accelerator.device
    emulated = [] if asked == accelerator.mixed_precision else [f"Precision: {describe_dtype(DTYPES[asked], place)}."]
    return "\n".join(
        [
            f"Training {stage}: {json.dumps(config.to_dict(), indent=2)}",
            f"Net: {count:,} parameters, {trained:,} of them trained, family '{target.family}'.",
            f"Data: {len(collection):,} images{times}.{limit} Result: '{folder}'.",
            f"Processes: {accelerator.num_processes}, each on {place.type}.",
            *emulated,
        ]
    )
