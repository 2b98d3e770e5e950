"""Evaluating a model on a folder of images: the figures against what they are made of, the files, the refusals."""

import json
import re
from dataclasses import replace

import made_up_family
import pytest
import torch
from PIL import Image

from unclip.__main__ import main
from unclip.unclip_core.data.center_crop import center_crop
from unclip.unclip_core.data.opening import open_images
from unclip.unclip_core.diffusion.noise import sample_seeds
from unclip.unclip_core.evaluate.encoders import OpenClipEncoder, unit
from unclip.unclip_core.evaluate.evaluation import clip_score, evaluate_model, gather, measured, settings_of
from unclip.unclip_core.evaluate.generation import Draw, Pairs, draw_pairs
from unclip.unclip_core.families.loading import SHAPES, load_model
from unclip.unclip_core.lora.files import write_lora
from unclip.unclip_core.models import MissingPart, StageSettings
from unclip.unclip_core.pipelines import encode_image, encode_text, sample_decoder, sample_prior, text_to_image
from unclip.unclip_core.pipelines.settings import Settings
from unclip.unclip_core.weights.files import CheckpointError

QUICK = Settings(prior=StageSettings(2, 2.0), decoder=StageSettings(1, 1.0, "dpmpp_2m"))
CAPTIONS = ["a red circle", "a <b>blue</b> square", "a green star", "a yellow heart", "a black ring"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Five images with captions, wider than high, and a damaged one."""
    folder = tmp_path_factory.mktemp("pictures")
    generator = torch.Generator().manual_seed(0)
    for index, caption in enumerate(CAPTIONS):
        levels = torch.randint(256, (6, 9, 3), generator=generator, dtype=torch.uint8).numpy()
        Image.fromarray(levels).resize((90, 60)).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(caption, encoding="utf-8")
    (folder / "9.png").write_bytes(b"no image")
    (folder / "9.txt").write_text("a damaged image", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def model():
    return load_model(SHAPES)


@pytest.fixture(scope="module")
def report(images, tmp_path_factory):
    """The figures of a quick run, and the folder of its files."""
    folder = tmp_path_factory.mktemp("report")
    how = Draw(small=True, seed=3, batch=2, settings=QUICK)
    return evaluate_model("bundled (shapes)", images, how=how, neighbours=2, output=folder), folder


# ---- a run ----


def test_the_figures_are_of_the_good_images(report):
    figures, _ = report
    assert figures["pictures"] == len(CAPTIONS) and list(figures["left_out"]) == ["9.png"]
    assert figures["family"] == "tiny" and figures["settings"]["candidates"] == 1
    assert all(0 <= figures[name] <= 1 for name in ("precision", "recall")) and figures["clip_fid"] >= 0
    assert "not on Inception's" in figures["note"]


def test_the_priors_cosine_is_that_of_its_embeddings(report, images, model):
    side = model.decoder.image_size
    true = torch.stack([center_crop(Image.open(images / f"{i}.png"), side) for i in range(5)]) / 255
    wanted = unit(encode_image(model.clip, true))
    text = encode_text(model.clip, CAPTIONS)
    drawn = sample_prior(model.prior, text, steps=2, guidance_scale=2.0, seeds=sample_seeds(3, 5), sampler="ddim")
    found = report[0]["prior_cosine"]
    assert found["prior"] == pytest.approx(float((unit(drawn) * wanted).sum(dim=1).mean()), abs=1e-5)
    assert found["text"] == pytest.approx(float((unit(text.embeds) * wanted).sum(dim=1).mean()), abs=1e-5)
    assert found["gain"] == pytest.approx(found["prior"] - found["text"])


def test_the_files_hold_the_figures_and_need_nothing_else(report):
    figures, folder = report
    assert json.loads((folder / "evaluation.json").read_text(encoding="utf-8")) == figures
    text = (folder / "evaluation.html").read_text(encoding="utf-8")
    assert text.count("data:image/jpeg;base64,") == 2 * len(CAPTIONS)
    assert not re.findall(r"https?://|<script|<link|@import", text)
    assert "&lt;b&gt;blue&lt;/b&gt;" in text and "<b>" not in text
    assert "<li>9.png: " in text and "CLIP-FID" in text and "not on Inception" in text


def test_a_batch_changes_no_image(images, model):
    def drawn(batch, count=5):
        how = Draw(small=True, batch=batch, settings=QUICK)
        return torch.cat([pairs.drawn for pairs in draw_pairs(model, open_images(images), count, how, {})])

    whole = drawn(5)
    torch.testing.assert_close(drawn(2), whole, rtol=0, atol=1e-3)
    torch.testing.assert_close(drawn(8, count=3), whole[:3], rtol=0, atol=1e-3)


def test_images_without_captions_are_drawn_from_their_own_embeddings(images, model, tmp_path):
    for index in range(4):
        Image.open(images / f"{index}.png").save(tmp_path / f"{index}.png")
    how = Draw("pictures", small=True, settings=QUICK)
    figures = evaluate_model("bundled (shapes)", tmp_path, how=how, as_json=True)
    assert figures["pictures"] == 4 and figures["drawn_from"] == "pictures"
    assert "clip_score" not in figures and "prior_cosine" not in figures and -1 <= figures["similarity"] <= 1


def test_a_lora_is_drawn_with(images, model, report, tmp_path):
    layer = "unet.middle.blocks.0.conv1"
    out, *into = model.decoder.net.get_submodule(layer).weight.shape
    factors = {layer: (torch.ones(1, *into), torch.full((out, 1, 1, 1), 0.05))}
    path = tmp_path / "strong.safetensors"
    write_lora(path, factors, family="tiny", stage="decoder", rank=1, alpha=1.0)
    how = Draw(small=True, seed=3, batch=8, settings=QUICK)
    figures = evaluate_model("bundled (shapes)", images, how=how, neighbours=2, loras=[(path, 1.0)])
    assert figures["loras"] == {"strong.safetensors": 1.0} and report[0]["loras"] == {}
    assert figures["similarity"] != pytest.approx(report[0]["similarity"], abs=1e-4)
    assert figures["prior_cosine"] == pytest.approx(report[0]["prior_cosine"], abs=1e-5)


# ---- models that lack parts ----


@pytest.fixture
def made_up(tmp_path):
    """A model without an upsampler."""
    with made_up_family.registered():
        yield load_model(made_up_family.write_folder(tmp_path / "made-up"))


def test_a_model_without_an_upsampler_is_measured_on_its_decoders_images(images, made_up):
    figures = evaluate_model(made_up.folder, images, how=Draw(seed=3), neighbours=2)
    assert figures["family"] == "made-up" and figures["stage"] == "decoder" and figures["pictures"] == len(CAPTIONS)
    assert figures["settings"]["decoder"] == vars(made_up_family.SETTINGS) and figures["settings"]["upsampler"] is None
    (pairs,) = draw_pairs(made_up, open_images(images), 5, Draw(seed=3), {})
    wanted = text_to_image(made_up, CAPTIONS, sample_seeds(3, 5), Settings(candidates=1))
    torch.testing.assert_close(pairs.drawn, wanted.small)
    torch.testing.assert_close(pairs.prior_embeds, wanted.embeds)
    assert pairs.drawn.shape == (5, made_up_family.SIDE, made_up_family.SIDE, 3)


class WithoutPrior(made_up_family.MadeUpFolder):
    def __init__(self, folder, dtype):
        super().__init__(folder, dtype)
        self.parts = frozenset({"clip", "decoder"})


def test_a_model_without_a_prior_is_measured_drawing_from_images(images, made_up, monkeypatch):
    monkeypatch.setattr(made_up_family, "MadeUpFolder", WithoutPrior)
    figures = evaluate_model(made_up.folder, images, how=Draw("pictures", seed=3), neighbours=2)
    assert figures["drawn_from"] == "pictures" and figures["settings"]["prior"] is None
    (pairs,) = draw_pairs(load_model(made_up.folder), open_images(images), 5, Draw("pictures", seed=3), {})
    embeds = encode_image(made_up.clip, pairs.true)
    torch.testing.assert_close(pairs.drawn, sample_decoder(made_up.decoder, embeds, seeds=sample_seeds(3, 5)))
    with pytest.raises(MissingPart, match="has no prior, so it cannot draw from captions: .*--from pictures"):
        evaluate_model(made_up.folder, images, how=Draw(seed=3))


def test_the_report_states_the_settings_that_were_used(model):
    given = Settings(decoder=StageSettings(3, 1.0, "ddpm"))
    found = settings_of(model, Draw(settings=given))
    assert found == replace(given, prior=model.prior.settings, upsampler=model.upsampler.settings, candidates=1)
    assert settings_of(model, Draw("pictures", small=True, settings=given)) == replace(given, candidates=1)


def test_the_square_is_from_the_middle():
    wide = Image.new("RGB", (90, 30), "red")
    wide.paste((0, 0, 255), (30, 0, 60, 30))
    assert (center_crop(wide, 8) == torch.tensor([0, 0, 255])).all()


# ---- figures ----


class Given:
    """Says the vectors that the images' first row spells."""

    name = "given"

    def images(self, images):
        return unit(images[:, 0, :, 0])

    def texts(self, texts):
        return unit(torch.tensor([[float(word) for word in text.split()] for text in texts]))


def spelt(rows):
    rows = torch.tensor(rows, dtype=torch.float64)
    return rows[:, None, :, None].expand(-1, 2, -1, 3)


def test_scores_of_known_vectors():
    """Unit vectors at 0, 60, 90 and 180 degrees of their texts: w times the mean of the cosines that are above 0."""
    half = 0.75**0.5
    drawn, texts = [[1, 0], [0.5, half], [0, 1], [-1, 0]], ["1 0"] * 4
    pairs = Pairs(
        texts,
        spelt([[1, 0]] * 4),
        spelt(drawn),
        true_embeds=torch.eye(4)[:, :2] + 1,
        text_embeds=torch.ones(4, 2),
        prior_embeds=torch.eye(4)[:, :2] + 1,
    )
    figures = measured(gather([pairs], Given()), neighbours=1)
    assert figures["clip_score"]["drawn"] == pytest.approx(2.5 * 1.5 / 4)
    assert figures["clip_score"]["true"] == pytest.approx(2.5)
    assert figures["similarity"] == pytest.approx(0.5 / 4)
    assert figures["prior_cosine"]["prior"] == pytest.approx(1)
    assert figures["prior_cosine"]["text"] == pytest.approx((2 * 3 / 10**0.5 + 2 * 1) / 4)


def test_the_same_images_are_at_no_distance():
    rows = spelt(torch.randn(6, 3, generator=torch.Generator().manual_seed(0)).tolist())
    figures = measured(gather([Pairs([""] * 6, rows, rows)], Given()))
    assert figures["clip_fid"] < 1e-10 and (figures["precision"], figures["recall"]) == (1.0, 1.0)
    assert figures["similarity"] == pytest.approx(1) and "prior_cosine" not in figures


def test_clip_score_is_zero_below_a_right_angle():
    assert clip_score(torch.tensor([[-1.0, 0]]), torch.tensor([[1.0, 0]])) == 0


# ---- a CLIP of open_clip's ----


@pytest.mark.slow
def test_an_architecture_of_open_clip_with_weights_from_a_file(tmp_path):
    import open_clip
    from safetensors.torch import save_file

    shape = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    (tmp_path / "unclip-test-small.json").write_text(json.dumps(shape))
    open_clip.add_model_config(tmp_path / "unclip-test-small.json")
    model, _, prepare = open_clip.create_model_and_transforms("unclip-test-small")
    save_file(model.state_dict(), tmp_path / "small.safetensors")
    encoder = OpenClipEncoder("unclip-test-small", tmp_path / "small.safetensors")
    pixels = torch.rand(1, 20, 30, 3, generator=torch.Generator().manual_seed(0))
    image = Image.fromarray((pixels[0] * 255).round().to(torch.uint8).numpy())
    with torch.no_grad():
        expected = model.eval().encode_image(prepare(image)[None], normalize=True)
        words = model.encode_text(open_clip.get_tokenizer("unclip-test-small")(["a cat"]), normalize=True)
    torch.testing.assert_close(encoder.images(pixels), expected.double())
    torch.testing.assert_close(encoder.texts(["a cat"]), words.double())
    assert encoder.name == "unclip-test-small (small.safetensors)"
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="bad.safetensors' does not hold weights of open_clip's"):
        OpenClipEncoder("unclip-test-small", tmp_path / "bad.safetensors")
    with pytest.raises(CheckpointError, match="there is no file .*none.pt"):
        OpenClipEncoder("unclip-test-small", tmp_path / "none.pt")
    with pytest.raises(ValueError, match="knows no architecture 'ViT-Q'"):
        OpenClipEncoder("ViT-Q", tmp_path / "small.safetensors")


# ---- refusals ----


def test_what_cannot_be_measured_is_said(images, monkeypatch):
    monkeypatch.setattr(
        "unclip.unclip_core.evaluate.evaluation.draw_pairs", None
    )  # it is said before anything is drawn
    how = Draw(small=True, settings=QUICK)
    with pytest.raises(ValueError, match="Only 2 images can be measured; with 3 neighbours at least 4"):
        evaluate_model("bundled (shapes)", images, count=2, how=how)
    with pytest.raises(ValueError, match="number of images must be 1 or more, not 0"):
        evaluate_model("bundled (shapes)", images, count=0, how=how)
    with pytest.raises(ValueError, match="give both or neither"):
        evaluate_model("bundled (shapes)", images, how=how, clip="ViT-B-32")
    with pytest.raises(ValueError, match="drawn from text or pictures, not from 'noise'"):
        Draw("noise")
    with pytest.raises(ValueError, match="1 image or more, not 0"):
        Draw(batch=0)


def test_the_command_says_what_it_needs(images, tmp_path, capsys):
    assert main(["evaluate"]) == 2
    assert "or --model and --data" in capsys.readouterr().err
    assert main(["evaluate", "--model", str(tmp_path), "--data", str(images)]) == 1
    assert "is no model folder" in capsys.readouterr().err
