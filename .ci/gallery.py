"""Draw the README's gallery with the bundled model of things: python .ci/gallery.py

The best of four drawings of each prompt, as CLIP finds it; the same weights give the same image.
"""

from pathlib import Path

import torch
from PIL import Image

from unclip.unclip_core.families.loading import load_model
from unclip.unclip_core.pipelines import text_to_image
from unclip.unclip_core.plotting.sheets import levels, tiled

TARGET = Path(__file__).resolve().parents[1] / "nodes" / "web" / "docs" / "gallery.jpg"
PROMPTS = (
    "a castle", "a cat face", "a red apple", "a house with garden", "a guitar, flat style", "a hamburger",
    "a dog face, 3d style", "a rocket on a navy background",
    "a bicycle", "a strawberry", "a panda", "a red car", "a fox face", "a birthday cake",
    "a whale on a blue background", "a sunflower",
    "a blue star on a black background", "bir aslan yüzü", "un château", "ein Kaktus", "熊猫", "ピザ", "корона",
    "una mariposa",
)  # fmt: skip
COLUMNS, SIDE, SEED, BATCH = 8, 128, 4, 4


def main() -> None:
    """Draw, and write the image."""
    model = load_model()
    drawn: list[torch.Tensor] = []
    with torch.inference_mode():
        for at in range(0, len(PROMPTS), BATCH):
            part = PROMPTS[at : at + BATCH]
            images = text_to_image(model, part, [SEED + at + k for k in range(len(part))]).large
            drawn += [levels(image) for image in images]
    sheet = Image.fromarray(tiled(drawn, COLUMNS).numpy())
    small = (COLUMNS * SIDE, -(-len(PROMPTS) // COLUMNS) * SIDE)
    sheet.resize(small, Image.Resampling.LANCZOS).save(TARGET, quality=90)


if __name__ == "__main__":
    main()
