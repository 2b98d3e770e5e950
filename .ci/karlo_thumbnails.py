"""Draw the thumbnails of workflows with models that are not part of this project: diagrams.

python .ci/karlo_thumbnails.py
"""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

WORKFLOWS = Path(__file__).resolve().parents[1] / "workflows"
SIDE, MARGIN, BOX, TOP, BOTTOM = 512, 66, 52, 70, 470
PAPER, INK, FAINT_CONTRAST, ARROW = (24, 26, 32), (255, 255, 255), (190, 192, 200), (150, 150, 160)
BLUE, VIOLET, GREEN, OCHRE, RED = (52, 84, 140), (108, 62, 140), (40, 116, 92), (150, 92, 40), (140, 52, 64)
KANDINSKY = "needs Kandinsky's weights"
PROMPT = ("Prompt", "a photograph of a big red frog", BLUE)
DIAGRAMS = {
    "karlo_text_to_image": (
        "Karlo: text to image",
        [
            PROMPT,
            ("CLIP ViT-L/14", "text embedding and token states", VIOLET),
            ("Prior", "25 steps, 1.0 billion parameters", GREEN),
            ("Decoder", "25 steps, 64 px", OCHRE),
            ("Super-resolution", "7 steps, 256 px", RED),
        ],
        "needs Karlo's weights",
    ),
    "karlo_image_variations": (
        "Karlo: image variations",
        [
            ("Image", "yours", BLUE),
            ("CLIP ViT-L/14", "image embedding", VIOLET),
            ("Decoder", "25 steps, four at 64 px", OCHRE),
            ("Super-resolution", "7 steps, four at 256 px", RED),
        ],
        "needs Karlo's weights for variations",
    ),
    "kandinsky_text_to_image": (
        "Kandinsky 2.2: text to image",
        [
            ("Prompt", "a red fox in deep snow", BLUE),
            ("CLIP ViT-bigG/14", "text embedding and token states", VIOLET),
            ("Prior", "25 steps, 1.0 billion parameters", GREEN),
            ("Decoder and MoVQ", "50 steps, 768 px", RED),
        ],
        KANDINSKY,
    ),
    "kandinsky_blend": (
        "Kandinsky 2.2: two images and a text",
        [
            ("Two images, a prompt", "yours", BLUE),
            ("CLIP ViT-bigG/14 and prior", "three image embeddings", VIOLET),
            ("Embedding Blend", "by weights", GREEN),
            ("Decoder and MoVQ", "50 steps, 768 px", RED),
        ],
        KANDINSKY,
    ),
    "kandinsky_image_variations": (
        "Kandinsky 2.2: image variations",
        [
            ("Image", "yours", BLUE),
            ("CLIP ViT-bigG/14", "image embedding", VIOLET),
            ("Decoder and MoVQ", "50 steps, four at 512 px", RED),
        ],
        KANDINSKY,
    ),
    "kandinsky_inpaint": (
        "Kandinsky 2.2: inpaint",
        [
            ("Image, mask, prompt", "yours", BLUE),
            ("CLIP and prior", "image embedding", VIOLET),
            ("Decoder for inpainting", "50 steps, at the image's size", RED),
        ],
        "needs kandinsky-2-2-decoder-inpaint",
    ),
    "kandinsky_depth": (
        "Kandinsky 2.2: by a depth hint",
        [
            ("Picture of the depth, prompt", "yours", BLUE),
            ("CLIP and prior", "image embedding", VIOLET),
            ("Depth Hint", "black far, white near", GREEN),
            ("Decoder for depth", "50 steps, 768 px", RED),
        ],
        "needs kandinsky-2-2-controlnet-depth",
    ),
    "eclipse_karlo": (
        "ECLIPSE's prior to Karlo",
        [
            PROMPT,
            ("CLIP ViT-L/14", "text embedding and token states", VIOLET),
            ("ECLIPSE", "one pass, 33 million parameters", GREEN),
            ("Karlo's decoder", "25 steps, 64 px", OCHRE),
            ("Super-resolution", "7 steps, 256 px", RED),
        ],
        "needs Karlo and ECLIPSE_Karlo_Prior",
    ),
    "eclipse_kandinsky": (
        "ECLIPSE's prior to Kandinsky 2.2",
        [
            ("Prompt", "a red fox in deep snow", BLUE),
            ("CLIP ViT-bigG/14", "text embedding and token states", VIOLET),
            ("ECLIPSE", "one pass, 34 million parameters", GREEN),
            ("Decoder and MoVQ", "50 steps, 768 px", RED),
        ],
        "needs Kandinsky and ECLIPSE_KandinskyV22_Prior",
    ),
    "karlo_to_sd21_unclip": (
        "Karlo's prior to SD 2.1 unCLIP",
        [
            PROMPT,
            ("Karlo's prior", "image embedding, 768 numbers", GREEN),
            ("unCLIPConditioning", "ComfyUI's own", VIOLET),
            ("Stable Diffusion 2.1 unCLIP-L", "768 px", RED),
        ],
        "needs Karlo and sd21-unclip-l.ckpt",
    ),
    "kandinsky_to_sdxl_revision": (
        "Kandinsky's prior to SDXL",
        [
            ("Prompt", "read by SDXL's clip_g", BLUE),
            ("Kandinsky 2.2's prior", "image embedding, 1280 numbers", GREEN),
            ("unCLIPConditioning", "ComfyUI's own", VIOLET),
            ("SDXL", "ReVision, 1024 px", RED),
        ],
        "needs Kandinsky's prior and SDXL",
    ),
    "sdxl_revision_blend": (
        "SDXL ReVision: two images",
        [
            ("Two images", "yours, read by ViT-bigG", BLUE),
            ("Embedding Blend", "as you weigh them", GREEN),
            ("Text Diff", "from one text to another", OCHRE),
            ("unCLIPConditioning", "ComfyUI's own", VIOLET),
            ("SDXL", "ReVision, 1024 px", RED),
        ],
        "needs SDXL and clip_vision_g",
    ),
    "stable_cascade_blend": (
        "Stable Cascade: two images",
        [
            ("Two images", "yours, read by ViT-L", BLUE),
            ("Embedding Interpolate", "halfway between them", GREEN),
            ("unCLIPConditioning", "ComfyUI's own", VIOLET),
            ("Stages C and B", "1024 px", RED),
        ],
        "needs Stable Cascade",
    ),
}
"""Workflow: title, boxes (name, what it does, colour) from top to bottom, and what it needs."""


def diagram(title: str, boxes: list[tuple[str, str, tuple[int, int, int]]], needs: str) -> Image.Image:
    """The boxes below one another, with arrows between them."""
    image = Image.new("RGB", (SIDE, SIDE), PAPER)
    draw = ImageDraw.Draw(image)
    say(draw, 34, title, 28, INK)
    step = (BOTTOM - TOP - BOX) // (len(boxes) - 1)
    for number, (name, does, colour) in enumerate(boxes):
        top = TOP + number * step
        draw.rounded_rectangle((MARGIN, top, SIDE - MARGIN, top + BOX), 12, fill=colour)
        say(draw, top + 18, name, 20, INK)
        say(draw, top + 39, does, 13, INK)
        if number + 1 < len(boxes):
            arrow(draw, top + BOX, top + step)
    say(draw, 494, needs, 15, FAINT_CONTRAST)
    return image


def say(draw: ImageDraw.ImageDraw, y: int, text: str, size: int, colour: tuple[int, int, int]) -> None:
    """Write a line in the middle."""
    draw.text((SIDE // 2, y), text, font=ImageFont.load_default(size=size), fill=colour, anchor="mm")


def arrow(draw: ImageDraw.ImageDraw, top: int, tip: int) -> None:
    """Draw an arrow downwards."""
    x = SIDE // 2
    draw.line((x, top, x, tip - 6), fill=ARROW, width=3)
    draw.polygon([(x - 7, tip - 8), (x + 7, tip - 8), (x, tip)], fill=ARROW)


if __name__ == "__main__":
    for name, parts in DIAGRAMS.items():
        diagram(*parts).save(WORKFLOWS / f"{name}.jpg", quality=88, optimize=True)
