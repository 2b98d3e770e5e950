"""Model folders of small random weights in the project's own format, and their parts from the loader."""

import json
from types import SimpleNamespace

import pytest
from eclipse_folders import random_prior
from factories import COMPONENTS, SIDE, add_second_upsampler, write_model
from PIL import Image

from unclip.nodes import host
from unclip.nodes.loaders import UnclipLoadModel
from unclip.unclip_core.families.kandinsky22 import random_decoder
from unclip.unclip_core.families.kandinsky22 import random_prior as random_kandinsky
from unclip.unclip_core.families.karlo.random_weights import small_size, write_random_karlo


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A models folder with two families of the same shapes: `mine` and `other`."""
    root = tmp_path_factory.mktemp("models")
    write_model(root / "mine", "test")
    write_model(root / "other", "another")
    return root


@pytest.fixture
def model_folder(models, monkeypatch):
    """Makes the loader list the folder `models`."""
    monkeypatch.setenv(host.FOLDER_VARIABLE, str(models))
    return models


def load(models, name):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(host.FOLDER_VARIABLE, str(models))
        return SimpleNamespace(**dict(zip(COMPONENTS, UnclipLoadModel().run(name), strict=True)))


@pytest.fixture(scope="session")
def mine(models):
    """The parts of `mine`, family "test": clip, prior, decoder, upsampler."""
    return load(models, "mine")


@pytest.fixture(scope="session")
def with_second(tmp_path_factory):
    """The parts of a model whose upscaler has a second net, for images of 4 * SIDE px."""
    root = tmp_path_factory.mktemp("with_second")
    add_second_upsampler(write_model(root / "both"), 4 * SIDE)
    return load(root, "both")


@pytest.fixture(scope="session")
def stated(tmp_path_factory):
    """The parts of a model whose index states settings that no other has."""
    root = tmp_path_factory.mktemp("stated")
    path = write_model(root / "stated") / "model_index.json"
    settings = {
        "prior": {"steps": 3, "guidance_scale": 1.5, "sampler": "ddpm"},
        "decoder": {"steps": 4, "guidance_scale": 3.0, "sampler": "ddim"},
        "upsampler": {"steps": 2, "sampler": "ddpm"},
    }
    path.write_text(json.dumps(json.loads(path.read_text()) | {"settings": settings}), encoding="utf-8")
    return load(root, "stated")


@pytest.fixture(scope="session")
def other(models):
    """The parts of `other`, family "another"."""
    return load(models, "other")


@pytest.fixture(scope="session")
def karlo_models(tmp_path_factory):
    """A models folder with small random Karlos under the published names, and an image beside them."""
    root = tmp_path_factory.mktemp("karlo")
    for name in ("karlo-v1-alpha", "karlo-v1-alpha-image-variations"):
        write_random_karlo(root / name, small_size())
    Image.linear_gradient("L").convert("RGB").save(root / "example.png")
    return root


@pytest.fixture(scope="session")
def kandinsky_models(tmp_path_factory):
    """A models folder with small random Kandinskys and priors of ECLIPSE under the published names, and an image."""
    root, width = tmp_path_factory.mktemp("kandinsky"), 1280
    random_kandinsky.write_random_prior(root / "kandinsky-2-2-prior", random_kandinsky.small_size(width))
    for name, beside in (("decoder", None), ("decoder-inpaint", "masked"), ("controlnet-depth", "hint")):
        sizes = random_decoder.small_size(width, beside)
        prior = "kandinsky-community/kandinsky-2-2-prior"
        random_decoder.write_random_decoder(root / f"kandinsky-2-2-{name}", sizes, prior=prior)
    random_prior(root / "ECLIPSE_KandinskyV22_Prior", width)
    for name in ("karlo-v1-alpha", "karlo-v1-alpha-image-variations"):
        write_random_karlo(root / name, small_size())
    random_prior(root / "ECLIPSE_Karlo_Prior")
    picture = Image.linear_gradient("L").convert("RGBA")
    picture.paste((0, 0, 0, 0), (64, 64, 160, 160))  # the hole that a mask is read from
    picture.save(root / "example.png")
    return root
