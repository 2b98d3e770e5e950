"""Run bundled workflows, and make of their images the thumbnails and the images of the help pages.

    python .ci/thumbnails.py [NAME …]      all that need no other model, or those named

Each workflow's images are put below one another and saved as workflows/NAME.jpg; where a help page shows it, also
beside that page. Seeds stand in the workflows, so that the same weights give the same thumbnails.
"""

import json
import sys
import tempfile
from pathlib import Path

from PIL import Image

from unclip.cli.headless.run import run_workflow

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS, PAGES = ROOT / "workflows", ROOT / "nodes" / "web" / "docs"
LONGEST, SHORTEST = 768, 128
QUALITY = 88
PAPER = (255, 255, 255)
SHOWN_BY = {
    "blend": "UnclipEmbeddingBlend",
    "clip_guidance": "UnclipDecoderSample",
    "clip_optimise": "UnclipClipOptimise",
    "ddim_inversion": "UnclipDdimInversion",
    "denoising_film": "UnclipDenoisingFilm",
    "describe": "UnclipDescribe",
    "forward_diffusion": "UnclipForwardDiffusion",
    "inpaint": "UnclipInpaint",
    "interpolate_grid": "UnclipEmbeddingInterpolate",
    "interpolate_pictures": "UnclipNoiseInterpolate",
    "interpolate_prompts": "UnclipImageGrid",
    "outpaint": "UnclipOutpaint",
    "pca": "UnclipPcaReconstruct",
    "rerank_scores": "UnclipRerank",
    "similarity": "UnclipEmbeddingSimilarity",
    "text_diff": "UnclipTextDiffNoise",
    "text_diff_frames": "UnclipTextDiff",
    "text_to_image": "UnclipUpscale",
    "text_to_image_candidates": "UnclipPriorSample",
    "variations": "UnclipImageEncode",
}
"""Workflow: the help page that shows its image, and what follows its name where it shows more than one."""

DOWNLOADED = ("karlo", "kandinsky", "eclipse")
"""How the names of workflows begin whose weights are not here."""


def main(names: list[str]) -> int:
    """Make the thumbnails of these workflows, or of all; returns the number of those that failed."""
    every = sorted(path.stem for path in WORKFLOWS.glob("*.json") if not path.stem.startswith(DOWNLOADED))
    failed = 0
    for name in names or every:
        with tempfile.TemporaryDirectory() as folder:
            prompt = json.loads((WORKFLOWS / "api" / f"{name}.json").read_text(encoding="utf-8"))
            report = run_workflow(prompt, output_dir=folder)
            if report.status != "ok" or not report.outputs:
                print(f"{name}: {report.status} {report.errors}", file=sys.stderr)
                failed += 1
                continue
            images = [saved for saved in report.outputs if saved.path.suffix == ".png"]
            by_node = sorted(images, key=lambda saved: int(saved.node))
            save(name, below_one_another([Image.open(saved.path).convert("RGB") for saved in by_node]))
        print(name)
    return failed


def below_one_another(images: list[Image.Image]) -> Image.Image:
    """The images as one, on white, no side longer than LONGEST, nor all shorter than SHORTEST."""
    sheet = Image.new("RGB", (max(p.width for p in images), sum(p.height for p in images)), PAPER)
    top = 0
    for image in images:
        sheet.paste(image, (0, top))
        top += image.height
    sheet.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    larger = max(1.0, SHORTEST / max(sheet.size))
    return sheet.resize((round(sheet.width * larger), round(sheet.height * larger)), Image.Resampling.LANCZOS)


def save(name: str, image: Image.Image) -> None:
    """Write the thumbnail, and the help page's image where one shows it."""
    pages = [PAGES / f"{SHOWN_BY[name]}.jpg"] if name in SHOWN_BY else []
    for path in [WORKFLOWS / f"{name}.jpg", *pages]:
        image.save(path, quality=QUALITY)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
