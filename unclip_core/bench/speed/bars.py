"""Draw ratios as bars with their range."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

INK, GRID, PAPER, BAR = (40, 40, 40), (200, 200, 200), (255, 255, 255), (31, 119, 180)
ROW, LABELS, WIDTH, TOP = 24, 220, 760, 36


@dataclass(frozen=True)
class Bar:
    """A value with the least and greatest of what it is the median of."""

    name: str
    value: float
    low: float
    high: float


def save_bars(rows: Sequence[Bar], title: str, path: str | Path) -> None:
    """Write an image of the bars, one below the other, with a line at 1. Raises ValueError for no bars."""
    if not rows:
        raise ValueError("a chart needs at least one bar")
    top = max(1.0, *(row.high for row in rows))
    image = Image.new("RGB", (WIDTH, TOP + ROW * len(rows) + 12), PAPER)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(13)
    draw.text((WIDTH / 2, 10), title, INK, font, anchor="ma")

    def across(value: float) -> float:
        return LABELS + value / top * (WIDTH - LABELS - 70)

    draw.line([(across(1), TOP), (across(1), TOP + ROW * len(rows))], GRID, width=2)
    for number, row in enumerate(rows):
        middle = TOP + ROW * (number + 0.5)
        draw.text((LABELS - 8, middle), row.name, INK, font, anchor="rm")
        draw.rectangle([across(0), middle - 7, across(row.value), middle + 7], fill=BAR)
        draw.line([(across(row.low), middle), (across(row.high), middle)], INK, width=2)
        draw.text((across(row.high) + 8, middle), f"{row.value:.2f}", INK, font, anchor="lm")
    image.save(path)
