"""Pictures as pixels: things on a plain ground."""

from PIL import Image

from .pictures import Picture, Placed
from .sprites import Sprites, shape_image
from .vocabulary import GROUNDS


def draw(picture: Picture, sprites: Sprites, pixels: int) -> Image.Image:
    """The picture as RGB of `pixels` squared."""
    canvas = Image.new("RGB", (pixels, pixels), list(GROUNDS.values())[picture.ground])
    for thing in picture.things:
        image = _image(picture, thing, sprites, max(1, round(thing.side * pixels)))
        corner = (round(thing.x * pixels - image.width / 2), round(thing.y * pixels - image.height / 2))
        canvas.paste(image, corner, image)
    return canvas


def _image(picture: Picture, thing: Placed, sprites: Sprites, side: int) -> Image.Image:
    if picture.kind == "shape":
        return shape_image(thing.concept, thing.style, side)
    return sprites.image(thing.style, thing.concept, side)
