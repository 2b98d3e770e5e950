"""The workflows that give image embeddings to SDXL and Stable Cascade, to their end in ComfyUI's own node classes.

The models are small and random (workflows_in_comfyui.py); what runs, runs in ComfyUI's Python.
"""

import json
import subprocess
from pathlib import Path

import pytest
from comfy_server import ROOT, environment

from unclip.unclip_core.families.kandinsky22.random_prior import small_size, write_random_prior

pytestmark = pytest.mark.comfyui

IN_COMFYUI = Path(__file__).with_name("workflows_in_comfyui.py")
WIDTH = 1280  # of ViT-bigG's embeddings, by which SDXL's texts are the prior's own


@pytest.fixture(scope="module")
def found(comfyui, tmp_path_factory):
    """Of each workflow: the images' shape, whether they are finite, and how far apart those of changed inputs are."""
    folder, python = comfyui
    models = tmp_path_factory.mktemp("stock-workflows")
    write_random_prior(models / "kandinsky-2-2-prior", small_size(WIDTH), vision=False)
    done = subprocess.run(
        [python, str(IN_COMFYUI), str(ROOT), str(folder), str(models)],
        cwd=folder, env=environment(), capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    line = next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))
    return json.loads(line.removeprefix("RESULT "))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("sdxl_revision_blend", [1, 64, 64, 3]), ("kandinsky_to_sdxl_revision", [1, 64, 64, 3]),
        ("stable_cascade_blend", [1, 128, 128, 3]),
    ],
)  # fmt: skip
def test_the_workflow_runs_to_its_end_and_the_embedding_reaches_the_image(found, name, shape):
    told = found[name]
    assert told["shape"] == shape and told["finite"]
    assert min(told["apart"]) > 1e-4  # other weights, texts or places between two images: another image
