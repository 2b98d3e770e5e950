"""Count the files and functions of this package that three journeys pass: `python tests/journeys.py [--root DIR]`.

A prompt (`unclip run workflows/api/text_to_image.json`), a weight file (the bundled model opened, and all its parts
read), and a training image (`unclip train decoder`, two steps on four images, from scratch on the bundled model's
CLIP). Counted are the distinct files with a function that was called, and the distinct functions and methods, in any
thread; a module's own top level, lambdas and comprehensions are left out. Each journey runs in a process of its own.
"""

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
JOURNEYS = {"prompt": "a prompt", "weights": "a weight file", "training": "a training image"}
DECODER = {
    "conditioner": {"kind": "map", "embed_dim": None, "hidden": 32, "time_embed_dim": 32,
                    "map_channels": [8, 8], "map_sizes": [8, 4]},
    "unet": {"in_channels": 3, "out_channels": 3, "channels": [16, 24], "blocks": [1, 1], "attention": [False, False],
             "map_channels": [8, 8], "time_channels": 16, "time_embed_dim": 32, "mid_blocks": 1, "groups": 8,
             "patch_size": 2, "layout": "light"},
    "image_size": 16,
}  # fmt: skip


def count(root: Path, run) -> tuple[int, int]:
    """Distinct files and functions below `root` that are called while `run` runs."""
    called = set()

    def on_event(frame, event, _):
        code = frame.f_code
        if event == "call" and not code.co_name.startswith("<") and code.co_filename.startswith(f"{root}/"):
            called.add((code.co_filename, code.co_firstlineno, code.co_name))

    threading.setprofile(on_event)
    sys.setprofile(on_event)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            run()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    inside = {place for place in called if "/tests/" not in place[0] and "/.venv/" not in place[0]}
    return len({file for file, _, _ in inside}), len(inside)


def prompt(root: Path, output: Path) -> None:
    """`unclip run` of the first workflow."""
    from unclip.__main__ import main

    assert not main(["run", str(root / "workflows/api/text_to_image.json"), "--output", str(output)])


def weights(root: Path, output: Path) -> None:
    """The bundled model, all parts."""
    load_model = _load_model()
    model = load_model()
    for part in ("clip", "prior", "decoder", "upsampler"):
        getattr(model, part)


def _load_model():
    try:
        from unclip.unclip_core.families.loading import load_model
    except ModuleNotFoundError:  # a tree from before the families
        from unclip.unclip_core.models import load_model
    return load_model


def training(root: Path, output: Path) -> None:
    """`unclip train decoder`, two steps on four images."""
    from PIL import Image

    from unclip.__main__ import main

    images = output / "images"
    images.mkdir()
    for number, color in enumerate(("red", "green", "blue", "yellow")):
        Image.new("RGB", (20, 20), color).save(images / f"{number}.png")
        (images / f"{number}.txt").write_text(f"a {color} square")
    settings = {"steps": 2, "batch": 2, "lr": 1e-3, "log_every": 1}
    net = json.loads(json.dumps(DECODER))
    del net["conditioner"]["embed_dim"]  # the training takes it from the CLIP
    config = output / "decoder.json"
    config.write_text(json.dumps({"start": "scratch", "base": str(_bundled(root)), "training": settings, "net": net}))
    arguments = ["--data", str(images), "--config", str(config), "--output", str(output / "model")]
    assert not main(["train", "decoder", *arguments])


def _bundled(root: Path) -> Path:
    return next(path.parent for path in (root / "unclip_core").rglob("model_index.json"))


def main() -> None:
    """Print a line a journey; `--journey` runs one in this process."""
    parser = argparse.ArgumentParser(description="Files and functions that a prompt, weights and an image pass.")
    parser.add_argument("--root", type=Path, default=HERE, help="the repository's folder, which is called `unclip`")
    parser.add_argument("--journey", choices=JOURNEYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    root = arguments.root.resolve()
    if arguments.journey is None:
        for journey in JOURNEYS:
            command = [sys.executable, __file__, "--root", str(root), "--journey", journey]
            subprocess.run(command, check=True)
        return
    sys.path.insert(0, str(root.parent))
    import unclip

    assert Path(unclip.__file__).parent == root, f"{root} was not imported, but {unclip.__file__}"
    with tempfile.TemporaryDirectory() as folder:
        files, functions = count(root, lambda: globals()[arguments.journey](root, Path(folder)))
    print(f"{JOURNEYS[arguments.journey]}: {files} files, {functions} functions")


if __name__ == "__main__":
    main()
