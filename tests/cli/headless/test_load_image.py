"""LoadImage without ComfyUI: frames, turns and names as the stock node takes them.

The numbers of frames are those that ComfyUI's own LoadImage gave for such files.
"""

import pytest
import torch
from PIL import Image, features

from unclip.cli.headless import run_workflow
from unclip.cli.headless.load_image import read_image

LEVELS = (10, 120, 240)


def frames():
    return [Image.new("RGB", (48, 40), (level, 50, 90)) for level in LEVELS]


@pytest.mark.parametrize(
    ("ending", "count"), [("mpo", 1), ("tif", 1), ("avif", 1), ("gif", 3), ("png", 3), ("webp", 3)]
)
def test_animations_give_all_frames_and_other_formats_their_first(tmp_path, ending, count):
    if ending in ("avif", "webp") and not features.check(ending):
        pytest.skip(f"this Pillow writes no {ending}")
    first, *others = frames()
    first.save(tmp_path / f"a.{ending}", save_all=True, append_images=others)
    images, mask = read_image(tmp_path / f"a.{ending}")
    assert images.shape == (count, 40, 48, 3) and len(mask) == count
    assert torch.allclose(images[:, 0, 0, 0] * 255, torch.tensor(LEVELS[:count], dtype=torch.float32), atol=4)


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 6.5, "text"])
def test_a_photo_is_turned_as_its_exif_says_whatever_else_that_holds(tmp_path, orientation):
    photo = Image.new("RGB", (24, 16), "white")
    photo.paste((255, 0, 0), (0, 0, 8, 8))
    exif = Image.Exif()
    if isinstance(orientation, int):
        exif[0x0112] = orientation
    exif[0x010F] = "a maker"
    photo.save(tmp_path / "a.png", exif=exif)
    images, _ = read_image(tmp_path / "a.png")
    red = images[0, :, :, 1] < 0.5
    corners = {1: (0, 0), 2: (0, -1), 3: (-1, -1), 4: (-1, 0), 5: (0, 0), 6: (0, -1), 7: (-1, -1), 8: (-1, 0)}
    assert images.shape[1:3] == ((24, 16) if orientation in (5, 6, 7, 8) else (16, 24))
    assert bool(red[corners.get(orientation, (0, 0))])


def test_an_exif_with_a_text_for_a_number_is_read_past(tmp_path):
    """The tag for the horizontal resolution, as a text: Pillow's own turning writes the EXIF anew, and raises."""
    data = b"Exif\0\0II*\0\x08\0\0\0" + b"\x01\0" + b"\x1a\x01\x02\0\x04\0\0\0abc\0" + b"\0\0\0\0"
    Image.new("RGB", (8, 8), (200, 0, 0)).save(tmp_path / "a.jpg", exif=data)
    assert read_image(tmp_path / "a.jpg")[0].shape == (1, 8, 8, 3)


@pytest.mark.parametrize(
    ("name", "grey"),
    [
        ("a.png", 10),
        ("a.png [input]", 10),
        ("clipspace/a.png [input]", 20),
        ("a.png [output]", 30),
        ("preview_00001_.png [temp]", 40),
        ("sub/a.png [output]", 50),
    ],
)
def test_names_with_a_mark_lie_where_comfyui_looks(tmp_path, name, grey):
    places = {"a.png": 10, "clipspace/a.png": 20, "out/a.png": 30, "out/preview_00001_.png": 40, "out/sub/a.png": 50}
    for place, level in places.items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2), level).save(tmp_path / place)
    workflow = {
        "1": {"class_type": "LoadImage", "inputs": {"image": name}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "found"}},
    }
    report = run_workflow(workflow, output_dir=tmp_path / "out", input_dirs=(tmp_path,))
    assert [Image.open(saved.path).getpixel((0, 0))[0] for saved in report.outputs] == [grey], report.errors


@pytest.mark.parametrize("name", ["b.png [input]", "a.png [output]", "a.png [elsewhere]", "a.png[temp]", "[input]", ""])
def test_a_name_that_is_nowhere_is_refused(tmp_path, name):
    Image.new("L", (2, 2)).save(tmp_path / "a.png")
    workflow = {
        "1": {"class_type": "LoadImage", "inputs": {"image": name}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    report = run_workflow(workflow, output_dir=tmp_path / "out", input_dirs=(tmp_path,))
    assert [(problem.kind, problem.input) for problem in report.errors] == [("refused", "image")]
