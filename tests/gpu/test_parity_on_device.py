"""Every pipeline, and every workflow that needs no download, draws on the device what it draws on the CPU."""

import copy

import pytest
import torch
from device_pipelines import PIPELINES, text_to_image
from factories import write_model
from offline import OFFLINE, QUICK, apart, drawn, read, with_inputs
from PIL import Image

from unclip.unclip_core.families.loading import load_model
from unclip.unclip_core.models import PARTS
from unclip.unclip_core.weights.devices import own_dtype

pytestmark = pytest.mark.gpu

SAME_LEVELS = {"fp32": 1.5, "auto": 4.0}
"""Mean differences allowed, of 255 levels; 0.6 and 1.4 were seen, in gradients' ascents, elsewhere 0.1 and 0.5."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with the image that workflows load."""
    place = tmp_path_factory.mktemp("inputs")
    picture = Image.linear_gradient("L").convert("RGBA")
    picture.paste((0, 0, 0, 0), (64, 64, 160, 160))  # the hole that a mask is read from
    picture.save(place / "example.png")
    return place


def there(model, device):
    """Copies of the model's parts on the device."""
    parts = [copy.deepcopy(getattr(model, name)) for name in PARTS]
    for part in parts:
        part.module.to(device)
    return parts


@pytest.mark.parametrize("pipeline", PIPELINES, ids=lambda pipeline: pipeline.__name__)
def test_a_pipeline_gives_what_the_cpu_gives(pipeline, folder, device, exact):
    model = load_model(folder)
    here = pipeline(lambda value: value, *[getattr(model, name) for name in PARTS])
    found = pipeline(lambda value: value.to(device), *there(model, device)).cpu()
    scale = here.abs().mean().clamp(min=1)
    assert found.isfinite().all() and found.shape == here.shape
    assert float((found - here).abs().mean() / scale) < 1e-3


def test_the_devices_own_dtype_draws_nearly_the_same(folder, device):
    exactly = load_model(folder)
    here = text_to_image(lambda value: value, *[getattr(exactly, name) for name in PARTS])
    model = load_model(folder, own_dtype(device))
    found = text_to_image(lambda value: value.to(device), *there(model, device)).float().cpu()
    assert found.isfinite().all() and float((found - here).abs().mean()) < 0.05


def test_the_workflows_are_all_there():
    assert len(OFFLINE) >= 21 and set(QUICK) < set(OFFLINE)


@pytest.mark.parametrize("name", OFFLINE)
def test_a_workflow_draws_the_cpus_images(name, device, inputs, tmp_path):
    given = {}
    if device.type == "cpu":
        if name not in QUICK:
            pytest.skip("a CPU rehearses a few of the workflows")
        given = {"steps": 1, "candidates": 1, "keep": 1, "cutouts": 2}
    here, _ = drawn(with_inputs(read(name), dtype="fp32", **given), tmp_path / "here", "cpu", inputs)
    for dtype, allowed in SAME_LEVELS.items():
        found, report = drawn(with_inputs(read(name), dtype=dtype, **given), tmp_path / dtype, device, inputs)
        assert report.device.startswith(str(device))
        difference = apart(found, here)
        print(f"{name} in {dtype}: {difference:.3f} levels from the CPU's")
        assert difference < allowed
    assert torch.tensor(here[0]).std() > 5  # there is something to see
