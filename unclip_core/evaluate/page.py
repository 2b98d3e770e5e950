"""The page of an evaluation: figures and images in one HTML file that needs nothing else."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import torch
from PIL import Image
from torch import Tensor

SIDE = 256
"""Largest side of an image on the page, in px."""

STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; }
th, td { text-align: left; padding: .2rem 1.5rem .2rem 0; border-bottom: 1px solid #8884; }
td { font-variant-numeric: tabular-nums; }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1.5rem; }
figure { margin: 0; }
figure div { display: flex; gap: .25rem; }
img { width: 50%; min-width: 0; image-rendering: auto; }
figcaption { font-size: .875rem; overflow-wrap: anywhere; }
"""

Shown = tuple[str, Tensor, Tensor]
"""A caption, the true image and the drawn one, each `[S, S, 3]` in 0..1."""


def page(figures: dict[str, Any], lines: Sequence[tuple[str, str]], shown: Sequence[Shown]) -> str:
    """Write the report of an evaluation as an HTML page that needs no other file; all texts in it are escaped.

    Args:
        figures: what `evaluate_model` returns; from here come model, data, how the images were drawn, and the samples
            that were left out with their reasons.
        lines: the figures as names and values, in the order of the table.
        shown: the images of the page; each is scaled down to `SIDE` px and put into the page as JPEG.

    Returns:
        The page.
    """
    title = escape(f"{figures['model']} on {figures['data']}")
    rows = "\n".join(f"<tr><th scope=row>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in lines)
    loras = "".join(f" with {name} at {strength:g}" for name, strength in figures["loras"].items())
    how = escape(
        f"Drawn from {figures['drawn_from']} by the {figures['stage']}{loras}, seed {figures['seed']}; "
        f"family {figures['family']}; data {figures['fingerprint']}."
    )
    pairs = "\n".join(_figure(*each) for each in shown)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{title}</h1>
<p>{how}</p>
<table>
{rows}
</table>
<p>{escape(figures["note"])}</p>
{_left_out(figures["left_out"])}
<h2>True images (left) and drawn ones (right)</h2>
<div class="pairs">
{pairs}
</div>
</body>
</html>
"""


def _left_out(bad: Mapping[str, str]) -> str:
    """List the samples that were left out, folded away; "" where there are none."""
    rows = "".join(f"<li>{escape(name)}: {escape(reason)}</li>" for name, reason in bad.items())
    return f"<details><summary>Samples left out: {len(bad):,}</summary><ul>{rows}</ul></details>" if bad else ""


def _figure(caption: str, true: Tensor, drawn: Tensor) -> str:
    """Show a pair of images `[S, S, 3]` side by side above their caption."""
    said = escape(caption)
    images = "".join(
        f'<img src="{_data(image)}" alt="{kind}: {said}">' for kind, image in (("true", true), ("drawn", drawn))
    )
    return f"<figure><div>{images}</div><figcaption>{said}</figcaption></figure>"


def _data(pixels: Tensor) -> str:
    """Encode an image `[S, S, 3]` in 0..1 as a data URI."""
    levels = (pixels.float().clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
    image, file = Image.fromarray(levels), io.BytesIO()
    image.thumbnail((SIDE, SIDE))
    image.save(file, "JPEG", quality=90)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
