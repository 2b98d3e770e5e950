"""Where a training writes its figures: logs of one JSON object a line, and TensorBoard where it is asked for."""

import time
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from .state import RunFiles, append_log


class Logbook:
    """The log of a training, its measures on held-out samples, and TensorBoard."""

    def __init__(self, files: RunFiles, tensorboard: bool, writes: bool) -> None:
        """Write nothing yet.

        Args:
            files: of the training.
            tensorboard: whether figures and images go to TensorBoard too.
            writes: False writes nothing at all, for all processes but the first.
        """
        self._files, self._tensorboard, self._writes = files, tensorboard, writes
        self._writer: Any = None

    def write(self, line: Mapping[str, float], held_out: bool = False) -> None:
        """Add figures with their "step" to the log, or to that of held-out samples. Raises OSError."""
        if not self._writes:
            return
        append_log(self._files.held_out if held_out else self._files.log, {**line, "time": round(time.time(), 1)})
        if (board := self._board(int(line["step"]))) is not None:
            for name, number in line.items():
                if name != "step":
                    board.add_scalar(f"held_out/{name}" if held_out else name, number, line["step"])

    def show(self, step: int, image: Tensor) -> None:
        """Show a sheet uint8 `[H, W, 3]` on TensorBoard. Raises OSError."""
        if self._writes and (board := self._board(step)) is not None:
            board.add_image("samples", image, step, dataformats="HWC")

    def close(self) -> None:
        """Finish writing."""
        if self._writer is not None:
            self._writer.close()

    def _board(self, step: int) -> Any:
        if self._writer is None and self._tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(self._files.folder / "tensorboard", purge_step=step)
        return self._writer
