"""Where a training on own images starts from: the bundled model, a Karlo, and LoRAs on either."""

import json
import shutil

import pytest
import torch
from PIL import Image

pytest.importorskip("accelerate")

from own_training import NAMES, config_of, curve, train, write_images

from unclip.unclip_core import pipelines
from unclip.unclip_core.data.center_crop import center_crop
from unclip.unclip_core.families.karlo.random_weights import SIZES, write_random_karlo
from unclip.unclip_core.families.karlo.reader import KarloFolder
from unclip.unclip_core.families.loading import SHAPES, load_model
from unclip.unclip_core.train.config import config_from_dict
from unclip.unclip_core.train.embeds import EmbeddingStore
from unclip.unclip_core.train.targets import make_target, open_base


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"))


def test_a_dry_run_checks_all_and_writes_nothing(images, tmp_path, capsys):
    output = tmp_path / "m"
    config = config_of("prior", 3, base="bundled (shapes)")
    assert train("prior", images, output, config, dry_run=True) == 0
    assert "parameters" in capsys.readouterr().out and not output.exists()


def test_a_dry_run_finds_what_a_training_would(images, tmp_path, monkeypatch):
    output, config = tmp_path / "m", config_of("prior", 1, base="bundled (shapes)")
    assert train("prior", images, output, config) == 0
    monkeypatch.setattr("unclip.unclip_core.train.run.embed_collection", None)  # nothing is embedded before
    for change, words in (
        ({"held_out": 16}, "held_out 16 of 16 images leaves none"),
        ({"lr": 0.5}, "training.lr was 0.002 and is 0.5"),
    ):
        changed = config | {"training": config["training"] | change}
        for dry_run in (True, False):
            with pytest.raises(ValueError, match=words):
                train("prior", images, output, changed, dry_run=dry_run)
    folder = write_random_karlo(tmp_path / "karlo", SIZES["small"]())
    karlo = {"base": str(folder), "training": config["training"], "loss": {"perceptual": 0.5}}
    with pytest.raises(ValueError, match="perceptual needs the base's CLIP"):
        train("decoder", images, tmp_path / "k", karlo, dry_run=True)


def test_a_base_that_is_needed_to_the_end_is_not_written_over(images, tmp_path):
    config = {"base": "output", "training": {"steps": 1, "batch": 2}, "keep_base": 0.5}
    output = tmp_path / "m"
    shutil.copytree(SHAPES, output)
    for base in ("output", str(output), f"{tmp_path}/m/../m"):
        with pytest.raises(ValueError, match="keep_base needs the base as it was.*another folder as --output"):
            train("prior", images, output, config | {"base": base}, dry_run=True)
    assert train("prior", images, tmp_path / "n", config | {"base": str(output)}, dry_run=True) == 0


def test_a_training_from_before_a_setting_goes_on(images, tmp_path):
    output = tmp_path / "m"
    config = config_of("decoder", 1, base="bundled (shapes)")
    assert train("decoder", images, output, config) == 0
    kept = output / "training" / "decoder" / "config.json"
    old = json.loads(kept.read_text())
    del old["freeze"], old["keep_base"], old["loss"]["perceptual"]
    kept.write_text(json.dumps(old))
    more = config | {"training": config["training"] | {"steps": 2}}
    assert train("decoder", images, output, more) == 0
    kept.write_text(json.dumps(old))
    with pytest.raises(ValueError, match="loss.perceptual was 0.0 and is 0.5"):
        train("decoder", images, output, more | {"loss": more["loss"] | {"perceptual": 0.5}})


def test_the_bundled_model_goes_on(images, tmp_path):
    config = {"base": "bundled (shapes)", "training": {"steps": 2, "batch": 2, "precision": "no"}}
    assert train("prior", images, tmp_path / "m", config) == 0
    made, bundled = load_model(tmp_path / "m"), load_model(SHAPES)
    assert made.family == bundled.family and made.decoder.image_size == bundled.decoder.image_size
    assert made.clip.adapter.config.words == bundled.clip.adapter.config.words
    old, new = (part.upsampler.second.net.state_dict() for part in (bundled, made))
    assert all(torch.equal(tensor, new[name]) for name, tensor in old.items())


def test_the_bundled_upsampler_goes_on_beside_the_second(images, tmp_path):
    config = {
        "base": "bundled (shapes)",
        "training": {"steps": 2, "batch": 2, "precision": "no", "warmup": 0},
        "loss": {"size": 64, "crop": 32},
    }
    assert train("upsampler", images, tmp_path / "m", config) == 0
    made, bundled = load_model(tmp_path / "m").upsampler, load_model(SHAPES).upsampler
    assert made.net.params == bundled.net.params and made.second.from_size == bundled.second.from_size
    old, new = bundled.net.state_dict(), made.net.state_dict()
    moved = [name for name, tensor in old.items() if not torch.equal(tensor, new[name])]
    assert len(moved) > 10


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["prior", "decoder", "upsampler"])
def test_karlo_goes_on(images, tmp_path, stage):
    base = write_random_karlo(tmp_path / "karlo", SIZES["small"]())
    loss = {"size": 32, "crop": 16} if stage == "upsampler" else {}
    config = {"base": str(base), "training": {"steps": 2, "batch": 2, "lr": 1e-3, "warmup": 0}, "loss": loss}
    assert train(stage, images, tmp_path / "m", config) == 0
    made, before = load_model(tmp_path / "m"), load_model(base)
    assert isinstance(made.reader, KarloFolder)
    made.reader.check()
    for part in ("clip", "prior", "decoder", "upsampler"):
        old, new = (getattr(model, part).module.state_dict() for model in (before, made))
        same = [name for name in old if torch.equal(old[name], new[name])]
        assert len(same) == len(old) if part != stage else len(same) < len(old), part


def test_settings_that_a_folder_cannot_state_are_refused_and_not_dropped(tmp_path):
    base = write_random_karlo(tmp_path / "karlo", SIZES["small"]())
    table = {"base": str(base), "training": {"steps": 2}, "settings": {"steps": 9}}
    with pytest.raises(ValueError, match=r"'karlo', whose folders state no sampling settings: leave out \[settings\]"):
        open_base("prior", config_from_dict(table, "prior"), tmp_path / "m")


def test_a_karlo_for_text_alone_sees_with_the_other_folders_eyes(images, tmp_path):
    """As published: one folder has the prior and no image encoder, the other the image encoder and no prior."""
    sizes = SIZES["small"]()
    text, image = (
        write_random_karlo(tmp_path / name, sizes, prior=name == "text", vision=name == "image")
        for name in ("text", "image")
    )
    config = {"base": str(text), "training": {"steps": 1, "batch": 2}}
    with pytest.raises(ValueError, match="has no image encoder.*image_encoder in the configuration"):
        train("prior", images, tmp_path / "m", config, dry_run=True)
    with pytest.raises(ValueError, match="image_encoder: .* has no image encoder that gives"):
        train("prior", images, tmp_path / "m", config | {"image_encoder": str(text)}, dry_run=True)
    assert train("prior", images, tmp_path / "m", config | {"image_encoder": str(image)}) == 0
    (index,) = (tmp_path / "m" / "training" / "embeddings").glob("*/index.json")
    store = EmbeddingStore(index.parent)
    seen = pipelines.encode_image(
        load_model(image).clip,
        torch.stack(
            [center_crop(Image.open(images / f"{name}.png"), sizes.vision.image_size).float() / 255 for name in NAMES]
        ),
    )
    torch.testing.assert_close(torch.stack([store.row(row)["image_embeds"] for row in range(16)]), seen)
    assert load_model(tmp_path / "m").prior.family == load_model(text).family


def test_a_lora_goes_on_and_leaves_the_base(images, tmp_path):
    pytest.importorskip("peft")
    from unclip.unclip_core.lora.delta import check_fits
    from unclip.unclip_core.lora.files import read_lora

    config = {
        "base": "bundled (shapes)",
        "training": {"steps": 2, "batch": 2, "lr": 1e-2, "warmup": 0, "log_every": 1},
        "lora": {"rank": 2},
    }
    output = tmp_path / "m"
    assert train("prior", images, output, config) == 0
    path = output / "prior-lora.safetensors"
    first = read_lora(path)
    check_fits(first, load_model(SHAPES).prior)
    assert any(b.abs().max() > 0 for _, b in first.factors.values())
    assert (output / "training" / "prior" / "state.pt").stat().st_size < 4e6
    config["training"]["steps"] = 3
    assert train("prior", images, output, config) == 0
    assert list(curve(output, "prior")) == [1, 2, 3]
    assert any(not torch.equal(b, read_lora(path).factors[name][1]) for name, (_, b) in first.factors.items())


@pytest.mark.parametrize(("net", "width", "side"), [
    ({"preset": "tiny"}, 192, 64), ({"preset": "tiny", "vision_cfg": {"image_size": 32, "layers": 1}}, 192, 32),
    ({"preset": "ViT-B-32", "embed_dim": 16, "vision_cfg": {"layers": 1, "width": 64}, "text_cfg": {"layers": 1}},
     16, 224),
])  # fmt: skip
def test_a_new_clip_is_shaped_by_a_preset(tmp_path, net, width, side):
    config = config_from_dict({"start": "scratch", "training": {"steps": 1}, "net": net}, "clip")
    clip = make_target("clip", config, None, tmp_path).clip
    assert (clip.embed_dim, clip.image_size) == (width, side)
    assert clip.tokenize(["whatever"]).shape == (1, clip.context_length) and not clip.config.words


def test_an_unknown_preset_is_said(tmp_path):
    config = config_from_dict({"start": "scratch", "training": {"steps": 1}, "net": {"preset": "vast"}}, "clip")
    with pytest.raises(
        ValueError, match="net.preset must be one of .*'tiny'.* or the name of an architecture of open_clip"
    ):
        make_target("clip", config, None, tmp_path)


def test_a_model_that_sees_by_itself_takes_no_other_image_encoder(images, tmp_path):
    config = {
        "base": "bundled (shapes)",
        "start": "base",
        "image_encoder": str(tmp_path),
        "training": {"steps": 1, "batch": 1},
    }
    with pytest.raises(ValueError, match="image_encoder is for a Karlo that has none"):
        train("decoder", images, tmp_path / "m", config, dry_run=True)
