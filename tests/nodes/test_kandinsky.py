"""Kandinsky 2.2 and ECLIPSE through the nodes: sizes, pictures to start from, hints, priors of other folders."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from eclipse_folders import random_prior
from safetensors.torch import load_file, save_file

from unclip import NODE_CLASS_MAPPINGS
from unclip.nodes import host
from unclip.nodes.inputs import InputError
from unclip.nodes.loaders import UnclipLoadModel
from unclip.nodes.sockets import EmbeddingValue, FamilyError
from unclip.unclip_core import pipelines
from unclip.unclip_core.families.kandinsky22 import random_decoder
from unclip.unclip_core.families.kandinsky22 import random_prior as random_kandinsky
from unclip.unclip_core.families.loading import load_model
from unclip.unclip_core.models import MissingPart
from unclip.unclip_core.pipelines import editing
from unclip.unclip_core.pipelines.clip_ascent import Ascent
from unclip.unclip_core.weights.files import CheckpointError

WIDTH = 1280
FAST = {"seed": 3, "steps": 2}
DECODER, INPAINT, DEPTH = (f"kandinsky-2-2-{name}" for name in ("decoder", "decoder-inpaint", "controlnet-depth"))
PRIOR, ECLIPSE = "kandinsky-2-2-prior", "ECLIPSE_KandinskyV22_Prior"


def call(node_id, *values, **widgets):
    """What a node returns, under inference mode as in ComfyUI."""
    node = NODE_CLASS_MAPPINGS[node_id]
    with torch.inference_mode():
        return getattr(node(), node.FUNCTION)(*values, **widgets)


def run(node_id, *values, **widgets):
    """All outputs of a node."""
    returned = call(node_id, *values, **widgets)
    return returned["result"] if isinstance(returned, dict) else returned


def said(node_id, *values, **widgets):
    """What a node shows of itself."""
    return call(node_id, *values, **widgets)["ui"]["text"][0]


def load(root, name, **more):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(host.FOLDER_VARIABLE, str(root))
        parts = UnclipLoadModel().run(name, **more)
    return SimpleNamespace(**dict(zip(("clip", "prior", "decoder", "upscaler"), parts, strict=True)))


@pytest.fixture(scope="module")
def kandinsky(kandinsky_models):
    return load(kandinsky_models, DECODER)


@pytest.fixture(scope="module")
def inpaint(kandinsky_models):
    return load(kandinsky_models, INPAINT)


@pytest.fixture(scope="module")
def depth(kandinsky_models):
    return load(kandinsky_models, DEPTH)


@pytest.fixture(scope="module")
def text(kandinsky):
    return run("UnclipTextEncode", kandinsky.clip, "a cat")[0]


@pytest.fixture(scope="module")
def embedding(kandinsky, text):
    return run("UnclipPriorSample", kandinsky.prior, text, **FAST)[0]


@pytest.fixture(scope="module")
def picture():
    """Smooth, not square, and not of a multiple of the latents' size: 90 × 70 px."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 70), torch.linspace(0, 1, 90), indexing="ij")
    return torch.stack([x, y, 1 - x], dim=-1)[None]


def draw(parts, embedding, **more):
    return run("UnclipDecoderSample", parts.decoder, embedding, **{**FAST, **more})[0]


# ---- size, picture, hint, negative: Decoder Sample ----


def test_the_size_that_is_asked_for_is_drawn_and_0_is_the_models_own(kandinsky, embedding):
    assert draw(kandinsky, embedding).shape == (1, 64, 64, 3)
    wide = draw(kandinsky, embedding, width=136, height=72)
    assert wide.shape == (1, 72, 136, 3)
    canvas = pipelines.Canvas((72, 136))
    expected = pipelines.sample_decoder(kandinsky.decoder.part, embedding.embeds, seeds=[3], steps=2, canvas=canvas)
    torch.testing.assert_close(wide, expected, rtol=0, atol=1e-5)
    assert draw(kandinsky, embedding, width=128).shape == (1, 64, 128, 3)


def test_an_image_is_the_start_at_its_own_size_and_is_cropped_to_another(kandinsky, embedding, picture):
    near = draw(kandinsky, embedding, image=picture, steps=10, strength=0.1)
    far = draw(kandinsky, embedding, image=picture, steps=10, strength=1.0)
    canvas = pipelines.Canvas(images=picture, strength=0.1)
    expected = pipelines.sample_decoder(kandinsky.decoder.part, embedding.embeds, seeds=[3], steps=10, canvas=canvas)
    torch.testing.assert_close(near, expected, rtol=0, atol=1e-5)
    assert near.shape == picture.shape and (near - far).abs().max() > 1e-2
    assert draw(kandinsky, embedding, image=picture, width=64, height=96, steps=4).shape == (1, 96, 64, 3)


def test_images_and_batch_go_together(kandinsky, embedding, picture):
    two = torch.cat([picture, 1 - picture])
    drawn = draw(kandinsky, embedding, image=two, steps=4, strength=0.5, batch_size=2)
    assert drawn.shape == (4, 70, 90, 3)
    alone = draw(kandinsky, embedding, image=1 - picture, steps=4, strength=0.5)
    torch.testing.assert_close(drawn[2:3], alone, rtol=0, atol=1e-4)
    three = EmbeddingValue(embedding.embeds.repeat(3, 1), embedding.family, "prior")
    with pytest.raises(InputError, match="3 of 'embedding', 2 of 'image'"):
        draw(kandinsky, three, image=two)


def test_an_image_starts_a_decoder_of_one_size_too(mine):
    embeds = torch.nn.functional.normalize(torch.randn(1, mine.clip.part.adapter.embed_dim), dim=1)
    own = EmbeddingValue(embeds, mine.decoder.family, "image")
    side = mine.decoder.part.image_size
    picture = torch.rand(1, 2 * side, 3 * side, 3)
    near, far = (
        run("UnclipDecoderSample", mine.decoder, own, steps=5, image=picture, strength=strength, sampler="ddim")[0]
        for strength in (0.2, 1.0)
    )
    assert near.shape == far.shape == (1, side, side, 3) and not torch.equal(near, far)


def test_the_bar_counts_the_steps_that_are_taken(kandinsky, embedding, picture, monkeypatch):
    totals = []
    chunks = host.run_in_chunks
    monkeypatch.setattr(host, "run_in_chunks", lambda *values: totals.append(values[3]) or chunks(*values))
    draw(kandinsky, embedding, image=picture, steps=10, strength=0.3)
    draw(kandinsky, embedding, steps=2)
    assert totals == [3, 2]


def test_a_negative_embedding_takes_the_place_of_no_image(kandinsky, embedding):
    away = EmbeddingValue(-embedding.embeds, embedding.family, "prior")
    led = draw(kandinsky, embedding, negative=away)
    settings = {"seeds": [3], "steps": 2}
    part = kandinsky.decoder.part
    expected = pipelines.sample_decoder(part, embedding.embeds, negative_embeds=away.embeds, **settings)
    torch.testing.assert_close(led, expected, rtol=0, atol=1e-5)
    assert (led - draw(kandinsky, embedding)).abs().max() > 1e-3
    told = said("UnclipDecoderSample", kandinsky.decoder, embedding, guidance_scale=1.0, negative=away, **FAST)
    assert told.endswith("Without guidance the negative embedding has no effect.")
    with pytest.raises(FamilyError, match="negative embedding belongs to the model family 'karlo'"):
        draw(kandinsky, embedding, negative=EmbeddingValue(embedding.embeds, "karlo", "prior"))


def test_a_text_that_the_decoder_does_not_read_is_said(kandinsky, inpaint, embedding, text, picture):
    told = said("UnclipDecoderSample", kandinsky.decoder, embedding, text=text, **FAST)
    assert told.endswith("This decoder reads no text: what is connected to 'text' has no effect on it.")
    mask = torch.ones(1, 70, 90)
    told = said("UnclipInpaint", inpaint.decoder, embedding, picture, mask, text=text, **FAST)
    assert "reads no text" in told and told.endswith("'resamples' has no effect.")


def test_a_depth_hint_is_drawn_by(depth, embedding, picture):
    (hint,) = run("UnclipDepthHint", picture[..., :1])
    drawn = draw(depth, embedding, hint=hint)
    canvas = pipelines.Canvas(hint=hint)
    expected = pipelines.sample_decoder(depth.decoder.part, embedding.embeds, seeds=[3], steps=2, canvas=canvas)
    torch.testing.assert_close(drawn, expected, rtol=0, atol=1e-5)
    assert drawn.shape == picture.shape
    assert (drawn - draw(depth, embedding, hint=1 - hint)).abs().max() > 1e-3
    assert draw(depth, embedding, hint=hint, width=128, height=64).shape == (1, 64, 128, 3)


def test_previews_are_of_the_latents_size_and_in_colours_of_movq(kandinsky, embedding, picture, monkeypatch):
    shown = []

    class Seen(host.Progress):
        def open_bar(self):
            pass

        def show_step(self, x0):
            shown.append((x0, self.images(x0)))

        def close_bar(self):
            pass

    monkeypatch.setattr(host.oom_retry, "progress", Seen)
    last = draw(kandinsky, embedding, width=128, height=64)
    assert [tuple(image.shape) for _, image in shown] == [(1, 3, 8, 16)] * 2
    flat = torch.tensor([0.3, -0.5, 0.8, 0.1])[None, :, None, None].expand(1, 4, 8, 8)
    codec = kandinsky.decoder.part.codec
    wanted = codec.decode(flat).mean((2, 3))
    torch.testing.assert_close(codec.preview(flat).mean((2, 3)), wanted.clamp(-1, 1), rtol=0, atol=0.25)
    assert last.shape == (1, 64, 128, 3)


def test_the_prior_draws_no_preview_with_a_decoder_that_needs_more(depth, inpaint, text, monkeypatch):
    """A hint or a mask is nothing that the prior has."""
    monkeypatch.setattr(host, "wants_preview", lambda: True)
    for parts in (depth, inpaint):
        assert run("UnclipPriorSample", parts.prior, text, decoder=parts.decoder, **FAST)[0].embeds.shape == (1, WIDTH)


# ---- inpainting ----


def hole(width=90, height=70):
    mask = torch.zeros(1, height, width)
    mask[:, 20:50, 30:60] = 1
    return mask


@pytest.mark.parametrize("name", [DECODER, INPAINT])
def test_a_hole_is_filled_at_the_images_own_size_and_the_rest_kept_to_the_bit(
    kandinsky_models, embedding, picture, name
):
    parts = load(kandinsky_models, name)
    whole, small = run("UnclipInpaint", parts.decoder, embedding, picture, hole(), resamples=2, **FAST)
    assert whole.shape == small.shape == picture.shape
    outside = hole()[0] == 0
    assert torch.equal(whole[:, outside], picture[:, outside])
    assert (whole - picture)[:, ~outside].abs().max() > 1e-2
    wide, known, mask, _ = run(
        "UnclipOutpaint", parts.decoder, embedding, picture, left=16, top=0, right=8, bottom=0, resamples=1, **FAST
    )
    assert wide.shape == (1, 70, 114, 3) and mask.shape == (1, 70, 114)
    assert torch.equal(wide[:, :, 16:106], picture) and torch.equal(known[:, :, 16:106], picture)


def test_the_inpaint_net_is_what_fills_where_the_decoder_has_it(inpaint, embedding, picture):
    _, small = run("UnclipInpaint", inpaint.decoder, embedding, picture, hole(), **FAST)
    expected = editing.inpaint_masked(inpaint.decoder.part, picture, hole(), embedding.embeds, seeds=[3], steps=2)
    torch.testing.assert_close(small, expected, rtol=0, atol=1e-5)


def test_its_auto_steps_are_its_own_and_repaints_are_the_nodes(kandinsky, inpaint, embedding, picture, monkeypatch):
    totals = []

    def counted(run, count, at_once, steps, *rest):
        totals.append(steps)
        return torch.zeros(1, 70, 90, 3)

    monkeypatch.setattr(host, "run_in_chunks", counted)
    for parts in (kandinsky, inpaint):
        run("UnclipInpaint", parts.decoder, embedding, picture, hole(), resamples=1)
    assert totals == [25, inpaint.decoder.part.settings.steps] == [25, 50]


@pytest.mark.parametrize("name", [DECODER, INPAINT])
def test_a_hole_is_led_away_from_a_negative_embedding(kandinsky_models, embedding, picture, name):
    parts = load(kandinsky_models, name)
    away = EmbeddingValue(-embedding.embeds, embedding.family, "prior")
    inputs = {"resamples": 1, "guidance_scale": 3.0, **FAST}
    _, small = run("UnclipInpaint", parts.decoder, embedding, picture, hole(), negative=away, **inputs)
    expected = editing.inpaint_decoder(
        parts.decoder.part, picture, hole(), embedding.embeds, seeds=[3], steps=2, guidance_scale=3.0,
        negative_embeds=away.embeds,
    )  # fmt: skip
    torch.testing.assert_close(small, expected, rtol=0, atol=1e-5)
    _, plain = run("UnclipInpaint", parts.decoder, embedding, picture, hole(), **inputs)
    assert (small - plain).abs().max() > 1e-3


def test_margins_are_led_away_from_a_negative_embedding_and_what_it_cannot_be_is_said(
    kandinsky, kandinsky_models, embedding, picture
):
    inputs = {"left": 16, "top": 0, "right": 0, "bottom": 0, "resamples": 1, **FAST}
    two = EmbeddingValue(torch.cat([-embedding.embeds, embedding.embeds.flip(1)]), embedding.family, "prior")

    def outpaint(**more):
        return run("UnclipOutpaint", kandinsky.decoder, embedding, picture, **inputs, **more)[0]

    drawn = outpaint(negative=two)
    assert drawn.shape == (2, 70, 106, 3) and (drawn[0] - drawn[1]).abs().max() > 1e-3
    alone = outpaint(negative=EmbeddingValue(two.embeds[:1], embedding.family, "prior"))
    torch.testing.assert_close(drawn[:1], alone, rtol=0, atol=1e-4)
    assert (alone - outpaint()).abs().max() > 1e-3
    told = said("UnclipOutpaint", kandinsky.decoder, embedding, picture, negative=two, guidance_scale=1.0, **inputs)
    assert "Without guidance the negative embedding has no effect." in told
    karlos = EmbeddingValue(torch.ones(1, 16), "karlo-16", "prior")
    for node, where in (("UnclipInpaint", {"resamples": 1, **FAST}), ("UnclipOutpaint", inputs)):
        masks = [hole()] if node == "UnclipInpaint" else []
        with pytest.raises(FamilyError, match="negative embedding belongs to the model family 'karlo-16'"):
            run(node, kandinsky.decoder, embedding, picture, *masks, negative=karlos, **where)
        with pytest.raises(
            FamilyError, match="embedding belongs to the model family 'karlo-16', the decoder to 'kandi"
        ):
            run(node, kandinsky.decoder, karlos, picture, *masks, **where)


def test_a_very_large_image_is_drawn_smaller_and_comes_back_in_its_own_size(kandinsky, embedding, monkeypatch):
    from unclip.nodes import defaults

    monkeypatch.setattr(defaults, "SIZE_MAX", 128)
    image, mask = torch.rand(1, 100, 200, 3), torch.zeros(1, 100, 200)
    mask[:, :50, :50] = 1
    whole, small = run("UnclipInpaint", kandinsky.decoder, embedding, image, mask, resamples=1, **FAST)
    assert small.shape == (1, 64, 128, 3) and whole.shape == image.shape
    assert torch.equal(whole[:, 50:], image[:, 50:])


# ---- priors ----


def test_a_decoder_knows_its_prior_by_its_card_and_another_is_chosen(kandinsky_models, kandinsky, embedding, text):
    other = load(kandinsky_models, DECODER, prior=ECLIPSE)
    assert other.prior.part.one_pass and not kandinsky.prior.part.one_pass
    drawn = run("UnclipPriorSample", other.prior, text, seed=3)[0]
    alone = load_model(kandinsky_models / ECLIPSE).prior
    expected = pipelines.sample_prior(alone, text.condition, seeds=[3])
    torch.testing.assert_close(drawn.embeds, expected)
    # CLIP, and with it "no image", stays that of the prior's folder that the card names
    torch.testing.assert_close(draw(other, embedding), draw(kandinsky, embedding), rtol=0, atol=1e-5)


def test_karlo_takes_eclipses_prior_and_keeps_the_rest(kandinsky_models):
    karlo = load(kandinsky_models, "karlo-v1-alpha", prior="ECLIPSE_Karlo_Prior")
    said = run("UnclipTextEncode", karlo.clip, "a cat")[0]
    drawn = run("UnclipPriorSample", karlo.prior, said, seed=1)[0]
    assert karlo.prior.part.one_pass
    assert run("UnclipDecoderSample", karlo.decoder, drawn, text=said, **FAST)[0].shape == (1, 16, 16, 3)
    assert karlo.upscaler.part.scale == 4


@pytest.mark.slow
def test_a_decoder_without_a_card_takes_clip_and_prior_of_the_folder_that_is_chosen(
    kandinsky_models, tmp_path, embedding, kandinsky
):
    for name in (DECODER, PRIOR, ECLIPSE):
        shutil.copytree(kandinsky_models / name, tmp_path / name)
    (tmp_path / DECODER / "README.md").unlink()
    bare = load(tmp_path, DECODER)
    with pytest.raises(MissingPart, match="no 'prior'"):
        _ = bare.prior.part
    joined = load(tmp_path, DECODER, prior=PRIOR)
    assert joined.clip.part.adapter.embed_dim == WIDTH and not joined.prior.part.one_pass
    torch.testing.assert_close(draw(joined, embedding), draw(kandinsky, embedding), rtol=0, atol=1e-5)
    # ECLIPSE has no CLIP, which guidance would ask for "no image": a negative embedding, or no guidance, does
    alone = load(tmp_path, DECODER, prior=ECLIPSE)
    with pytest.raises(ValueError, match="needs the embedding of an empty picture"):
        draw(alone, embedding)
    away = EmbeddingValue(-embedding.embeds, embedding.family, "prior")
    assert draw(alone, embedding, negative=away).shape == (1, 64, 64, 3)


def test_a_change_of_the_priors_folder_is_a_change_of_the_model(kandinsky_models, tmp_path, monkeypatch):
    for name in (DECODER, ECLIPSE):
        shutil.copytree(kandinsky_models / name, tmp_path / name)
    monkeypatch.setenv(host.FOLDER_VARIABLE, str(tmp_path))
    assert UnclipLoadModel.INPUT_TYPES()["optional"]["prior"][0] == ["auto", ECLIPSE, DECODER]
    before = UnclipLoadModel.IS_CHANGED(DECODER, "auto", ECLIPSE)
    assert before == UnclipLoadModel.IS_CHANGED(DECODER, "auto", ECLIPSE) != UnclipLoadModel.IS_CHANGED(DECODER)
    (tmp_path / ECLIPSE / "more.txt").write_text("new")
    assert UnclipLoadModel.IS_CHANGED(DECODER, "auto", ECLIPSE) != before


def test_a_change_of_the_prior_that_the_card_names_is_a_change_of_the_model(kandinsky_models, tmp_path, monkeypatch):
    for name in (DECODER, PRIOR, ECLIPSE):
        shutil.copytree(kandinsky_models / name, tmp_path / name)
    monkeypatch.setenv(host.FOLDER_VARIABLE, str(tmp_path))
    for chosen in ("auto", ECLIPSE):  # CLIP, and "no image", stay those of the folder that the card names
        before = UnclipLoadModel.IS_CHANGED(DECODER, "auto", chosen)
        assert before == UnclipLoadModel.IS_CHANGED(DECODER, "auto", chosen)
        rewritten = next((tmp_path / PRIOR / "prior").glob("*.safetensors"))
        rewritten.write_bytes(rewritten.read_bytes() + b" ")
        assert UnclipLoadModel.IS_CHANGED(DECODER, "auto", chosen) != before
    before = UnclipLoadModel.IS_CHANGED(DECODER)
    (tmp_path / PRIOR).rename(tmp_path / "elsewhere")
    assert UnclipLoadModel.IS_CHANGED(DECODER) != before
    (tmp_path / DECODER / "model_index.json").write_text("{")
    assert UnclipLoadModel.IS_CHANGED(DECODER)  # what is wrong with it is the run's to say


# ---- what is refused, each in a sentence ----


def test_a_prior_of_another_width_is_refused(kandinsky_models, tmp_path):
    shutil.copytree(kandinsky_models / DECODER, tmp_path / DECODER)
    random_kandinsky.write_random_prior(tmp_path / "narrow", random_kandinsky.small_size(16))
    with pytest.raises(CheckpointError, match=r"family 'kandinsky22-16', the model reads those of 'kandinsky22'"):
        load(tmp_path, DECODER, prior="narrow")
    (tmp_path / "narrow").rename(tmp_path / PRIOR)  # as the card calls it
    with pytest.raises(CheckpointError, match=r"embeddings of the family 'kandinsky22'.*some of 'kandinsky22-16'"):
        load(tmp_path, DECODER)


def test_a_prior_of_another_family_and_a_folder_without_one_are_refused(kandinsky_models, tmp_path):
    with pytest.raises(CheckpointError, match=r"family 'karlo-16', the model reads those of 'kandinsky22'"):
        load(kandinsky_models, DECODER, prior="ECLIPSE_Karlo_Prior")
    shutil.copytree(kandinsky_models / DECODER, tmp_path / "bare")
    (tmp_path / "bare" / "README.md").unlink()
    with pytest.raises(CheckpointError, match="chosen as the prior's folder, and it has no prior"):
        load(tmp_path, "bare", prior="bare")
    with pytest.raises(InputError, match="There is no model 'gone'"):
        load(kandinsky_models, DECODER, prior="gone")


def test_karlos_embedding_into_kandinskys_decoder_is_refused(kandinsky, kandinsky_models):
    karlo = load(kandinsky_models, "karlo-v1-alpha")
    read = run("UnclipTextEncode", karlo.clip, "a cat")[0]
    embedding = run("UnclipPriorSample", karlo.prior, read, **FAST)[0]
    with pytest.raises(FamilyError, match="embedding belongs to the model family 'karlo-16', the decoder to 'kandi"):
        draw(kandinsky, embedding)


def test_a_missing_movq_is_refused(kandinsky_models, tmp_path):
    folder = shutil.copytree(kandinsky_models / DECODER, tmp_path / DECODER)
    shutil.copytree(kandinsky_models / PRIOR, tmp_path / PRIOR)
    (weights,) = (folder / "movq").glob("*.safetensors")
    weights.rename(tmp_path / weights.name)
    with pytest.raises(CheckpointError, match=r"movq' holds no weights: neither a \.safetensors nor a \.bin"):
        load(tmp_path, DECODER)
    shutil.rmtree(folder / "movq")
    with pytest.raises(CheckpointError, match="has no 'movq': there is no folder"):
        load(tmp_path, DECODER)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({k: v for k, v in index.items() if k != "movq"}))
    with pytest.raises(CheckpointError, match="names no 'movq'"):
        load(tmp_path, DECODER)


def test_a_clip_std_of_zeros_is_refused(kandinsky_models, tmp_path):
    folder = shutil.copytree(kandinsky_models / PRIOR, tmp_path / PRIOR)
    (path,) = (folder / "prior").glob("*.safetensors")
    tensors = load_file(path)
    tensors["clip_std"] = torch.zeros_like(tensors["clip_std"])
    save_file(tensors, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)
    parts = load(tmp_path, PRIOR)
    with pytest.raises(CheckpointError, match="clip_std"):
        _ = parts.prior.part


def test_an_inpaint_net_without_a_mask_is_refused(inpaint, embedding, picture):
    with pytest.raises(InputError, match="trained for inpainting alone, and Decoder Sample has no mask: take Inpaint"):
        draw(inpaint, embedding, image=picture)


def test_a_hint_too_much_and_a_hint_too_few_are_refused(kandinsky, depth, embedding, picture):
    with pytest.raises(InputError, match="reads no hint"):
        draw(kandinsky, embedding, hint=picture)
    with pytest.raises(InputError, match="connect Depth Hint to 'hint'"):
        draw(depth, embedding)
    with pytest.raises(ValueError, match="draws by a picture of the depth"):
        run("UnclipInpaint", depth.decoder, embedding, picture, hole(), **FAST)


@pytest.mark.parametrize("side", [1, 63, 4096, -8])
@pytest.mark.parametrize("name", ["width", "height"])
def test_sizes_out_of_range_are_refused_before_the_run_and_in_it(kandinsky, embedding, name, side):
    node = NODE_CLASS_MAPPINGS["UnclipDecoderSample"]
    message = node.VALIDATE_INPUTS(**{name: side})
    assert f"'{name}' is {side:,}" in message and message.endswith(".")
    assert node.VALIDATE_INPUTS(width=64, height=2048) is node.VALIDATE_INPUTS(width=0, height=0) is True
    with pytest.raises(InputError, match=f"'{name}' is {side:,}"):
        draw(kandinsky, embedding, **{name: side})


@pytest.mark.parametrize("size", [(1, 1), (64, 4096)])
def test_pictures_out_of_range_are_refused(kandinsky, embedding, size):
    image = torch.rand(1, *size, 3)
    with pytest.raises(InputError, match=f"The image is {size[1]} × {size[0]} pixels"):
        draw(kandinsky, embedding, image=image)
    if min(size) == 1:
        with pytest.raises(InputError, match="The image is 1 × 1 pixels"):
            run("UnclipInpaint", kandinsky.decoder, embedding, image, torch.ones(1, *size), **FAST)


def test_pictures_too_narrow_and_margins_too_wide_are_refused_by_their_own_size(kandinsky, embedding, monkeypatch):
    from unclip.nodes import defaults

    margins = {"top": 0, "right": 0, "bottom": 0, "resamples": 1, **FAST}
    for size in ((64, 4096), (4096, 64)):
        image = torch.rand(1, *size, 3)
        told = f"The image is {size[1]} × {size[0]} pixels, of which {size[1] // 2} × {size[0] // 2} are drawn"
        with pytest.raises(InputError, match=told):
            run("UnclipInpaint", kandinsky.decoder, embedding, image, torch.ones(1, *size), resamples=1, **FAST)
        with pytest.raises(InputError, match=told):
            run("UnclipOutpaint", kandinsky.decoder, embedding, image, left=16, **margins)
    monkeypatch.setattr(defaults, "SIZE_MAX", 128)
    for image in (torch.rand(1, 128, 128, 3), torch.rand(1, 256, 256, 3)):
        with pytest.raises(InputError, match="With its margins the image is 136 × 128 pixels.*take smaller margins"):
            run("UnclipOutpaint", kandinsky.decoder, embedding, image, left=8, **margins)


@pytest.mark.parametrize("kind", ["inpaint", "depth"])
def test_an_inversion_by_a_decoder_that_sees_more_than_the_latents_is_refused(request, kind, embedding):
    parts, told = request.getfixturevalue(kind), {"inpaint": "inpainting alone", "depth": "picture of the depth"}[kind]
    with pytest.raises(ValueError, match=told):
        run("UnclipDdimInversion", parts.decoder, embedding, torch.rand(1, 64, 64, 3), steps=1)


def test_a_size_that_a_decoder_of_one_size_does_not_draw_is_refused(mine):
    embeds = torch.nn.functional.normalize(torch.randn(1, mine.clip.part.adapter.embed_dim), dim=1)
    own = EmbeddingValue(embeds, mine.decoder.family, "image")
    with pytest.raises(InputError, match="pixels only: leave 'width' and 'height' at 0"):
        run("UnclipDecoderSample", mine.decoder, own, width=768)


@pytest.mark.parametrize("as_prior", [False, True])
def test_lambda_eclipse_is_refused_by_name(kandinsky_models, tmp_path, as_prior):
    path = random_prior(tmp_path / "lambda") / "diffusion_pytorch_model.safetensors"
    save_file(load_file(path) | {"embedding_control.weight": torch.zeros(2, 2)}, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)
    shutil.copytree(kandinsky_models / DECODER, tmp_path / DECODER)
    with pytest.raises(CheckpointError, match="lambda-ECLIPSE"):
        load(tmp_path, *((DECODER,) if as_prior else ("lambda",)), **({"prior": "lambda"} if as_prior else {}))


def test_there_is_no_upscaler_and_none_is_needed(kandinsky):
    with pytest.raises(MissingPart, match="no 'upsampler'; it has clip, prior, decoder"):
        _ = kandinsky.upscaler.part


def test_small_decoders_are_as_the_published_in_what_they_read():
    assert [random_decoder.small_size(8, beside).decoder.unet.in_channels for beside in (None, "masked", "hint")] == [
        4, 9, 8,
    ]  # fmt: skip


# ---- VQGAN+CLIP ----


def test_clip_optimise_reads_and_places_the_codec_alone(kandinsky_models, text):
    parts = load(kandinsky_models, DECODER)
    settings = {"steps": 1, "cutouts": 1, "width": 32, "height": 32, "seed": 1}
    (alone,) = run("UnclipClipOptimise", parts.clip, text, decoder=parts.decoder, **settings)
    assert "value" not in vars(parts.decoder)  # what holds the UNet
    codec = parts.decoder.codec
    assert {type(codec.module).__name__} == {"MoVQ"} and parts.decoder.codec is codec
    whole = parts.decoder.part.codec
    assert parts.decoder.codec is whole  # once it is there, it is not read again
    (again,) = run("UnclipClipOptimise", parts.clip, text, decoder=parts.decoder, **settings)
    torch.testing.assert_close(again, alone, rtol=0, atol=1e-5)


def test_clip_optimise_climbs_over_movqs_codes_and_says_so(kandinsky, mine, text, monkeypatch):
    settings = {"steps": 2, "cutouts": 2, "width": 40, "height": 32, "seed": 1}
    returned = call("UnclipClipOptimise", kandinsky.clip, text, decoder=kandinsky.decoder, **settings)
    (image,) = returned["result"]
    assert image.shape == (1, 32, 40, 3) and 0 <= image.min() and image.max() <= 1
    assert returned["ui"]["text"] == ["The latents of the decoder's image codec were changed."]
    ascent = Ascent(steps=2, cutouts=2)
    codec = kandinsky.decoder.part.codec
    expected = editing.optimise_images(
        kandinsky.clip.part, text.condition.embeds, ascent, seeds=[1], size=(32, 40), codec=codec
    )
    torch.testing.assert_close(image, expected, rtol=0, atol=1e-4)
    pixels = said("UnclipClipOptimise", kandinsky.clip, text, **settings)
    nothing = said("UnclipClipOptimise", kandinsky.clip, text, decoder=mine.decoder, **settings)
    assert pixels == "Pixels were changed." and nothing.startswith("This decoder draws pixels")
