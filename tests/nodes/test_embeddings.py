"""The nodes that do arithmetic with embeddings: what they hand to the core, and what they refuse in words."""

import math

import pytest
import torch

from unclip import NODE_CLASS_MAPPINGS
from unclip.nodes.clip_vision import ClipVisionOutput, UnclipToClipVision
from unclip.nodes.inputs import InputError
from unclip.nodes.sockets import BasisValue, EmbeddingValue, FamilyError, NoiseValue, TextValue
from unclip.unclip_core.clip.adapter import TextCondition
from unclip.unclip_core.embedding.arithmetic import blend, nlerp, slerp, text_diff
from unclip.unclip_core.embedding.pca import fit_basis, reconstruct

WIDTH = 16


def run(node_id, *values, **widgets):
    """All outputs of a node, and what it shows as text."""
    node = NODE_CLASS_MAPPINGS[node_id]
    with torch.inference_mode():
        returned = getattr(node(), node.FUNCTION)(*values, **widgets)
    if isinstance(returned, dict):
        return (*returned["result"], returned["ui"].get("text", [None])[0])
    return (*returned, None)


def rows(count, seed=1, width=WIDTH):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def value(count=1, seed=1, family="test", **more):
    return EmbeddingValue(rows(count, seed), family, "image", **more)


def text(count=1, seed=9, family="test"):
    embeds = rows(count, seed)
    condition = TextCondition(embeds, torch.zeros(count, 2, 4), torch.ones(count, 2).bool())
    return TextValue(condition, family, tuple(f"prompt {i + 1}" for i in range(count)))


# ---- Embedding Interpolate: method ----


def test_the_method_chooses_the_way():
    a, b = value(2), value(2, seed=2)
    for method, way in (("slerp", slerp), ("lerp", nlerp)):
        found = run("UnclipEmbeddingInterpolate", a, b, t=0.3, method=method)[0]
        assert torch.equal(found.embeds, way(a.embeds, b.embeds, 0.3))
    with pytest.raises(InputError, match="'method' must be one of slerp, lerp, not 'cubic'"):
        run("UnclipEmbeddingInterpolate", a, b, method="cubic")


# ---- Embedding Blend ----


def test_a_blend_counts_each_embedding_by_its_own_weight():
    a, b, c = value(1), value(1, seed=2), value(3, seed=3)
    found = run("UnclipEmbeddingBlend", weight_2=-0.5, weight_7=2.0, embedding_1=a, embedding_2=b, embedding_7=c)[0]
    assert torch.equal(found.embeds, blend([a.embeds, b.embeds, c.embeds], [1.0, -0.5, 2.0]))
    assert (found.family, found.source) == ("test", "blend") and found.embeds.shape == (3, WIDTH)


@pytest.mark.parametrize("node_id", ["UnclipEmbeddingBlend", "UnclipEmbeddingBatch"])
def test_eight_empty_inputs_are_refused(node_id):
    with pytest.raises(InputError, match="link at least one of embedding_1 to embedding_8"):
        run(node_id)


@pytest.mark.parametrize("node_id", ["UnclipEmbeddingBlend", "UnclipEmbeddingBatch"])
def test_embeddings_of_two_families_are_not_mixed(node_id):
    with pytest.raises(FamilyError, match="embedding_5.*'another'.*embedding_3.*'test'"):
        run(node_id, embedding_3=value(), embedding_5=value(family="another"))


@pytest.mark.parametrize("bad", [math.nan, 11.0, "1"])
def test_weights_out_of_range_are_refused(bad):
    with pytest.raises(InputError, match="'weight_3'"):
        run("UnclipEmbeddingBlend", weight_3=bad, embedding_3=value())
    assert "'weight_4'" in NODE_CLASS_MAPPINGS["UnclipEmbeddingBlend"].VALIDATE_INPUTS(weight_4=bad)


def test_weights_that_leave_nothing_are_refused():
    with pytest.raises(ValueError, match="cancel"):
        run("UnclipEmbeddingBlend", weight_2=-1.0, embedding_1=value(), embedding_2=value())
    with pytest.raises(ValueError, match="not all 0"):
        run("UnclipEmbeddingBlend", weight_1=0.0, embedding_1=value())


# ---- Embedding Batch ----


def test_a_batch_holds_all_in_order_with_their_prompts():
    a, b = value(2, prompts=("x", "y")), EmbeddingValue(rows(1, 4), "test", "prior", ("z",), 5)
    found = run("UnclipEmbeddingBatch", embedding_2=a, embedding_8=b)[0]
    assert torch.equal(found.embeds, torch.cat([a.embeds, b.embeds]))
    assert (found.source, found.prompts) == ("image, prior", ("x", "y", "z"))


# ---- Text Diff ----


def test_a_text_diff_is_the_cores_and_frames_run_from_nothing_to_theta():
    image, before, after = value(2), text(), text(seed=4)
    one = run("UnclipTextDiff", image, before, after, theta=0.4)[0]
    core = (image.embeds, before.condition.embeds, after.condition.embeds)
    assert torch.equal(one.embeds, text_diff(*core, 0.4))
    frames = run("UnclipTextDiff", image, before, after, theta=0.4, frames=3)[0]
    assert frames.embeds.shape == (6, WIDTH) and (frames.source, frames.prompts) == ("text diff", ("prompt 1",))
    torch.testing.assert_close(frames.embeds[0], image.embeds[0])
    torch.testing.assert_close(frames.embeds[[2, 5]], one.embeds)
    torch.testing.assert_close(frames.embeds[[1, 4]], text_diff(*core, 0.2))


@pytest.mark.parametrize("theta", [-0.1, 1.1, math.nan, None])
def test_theta_out_of_range_is_refused(theta):
    with pytest.raises(InputError, match="'theta'"):
        run("UnclipTextDiff", value(), text(), text(seed=4), theta=theta)


def test_texts_and_embeddings_must_pair_up_be_of_one_family_and_differ():
    with pytest.raises(InputError, match="2 embeddings, 3 texts before and 1 after"):
        run("UnclipTextDiff", value(2), text(3), text(seed=4))
    with pytest.raises(FamilyError, match="text_after"):
        run("UnclipTextDiff", value(), text(), text(family="another"))
    with pytest.raises(InputError, match="^'prompt 1' and 'prompt 1' mean the same to CLIP"):
        run("UnclipTextDiff", value(), text(), text())


@pytest.mark.parametrize("after", [3, 1])
def test_of_a_batch_the_pair_that_says_the_same_is_named(after):
    """The second before means what is said after, be that its own text or the one for all."""
    said_after = text(after, seed=4)
    embeds = rows(3, 9)
    embeds[1] = 2 * said_after.condition.embeds[1 % after]
    condition = TextCondition(embeds, torch.zeros(3, 2, 4), torch.ones(3, 2).bool())
    before = TextValue(condition, "test", ("old 1", "old 2", "old 3"))
    with pytest.raises(InputError, match=f"Pair 2 of the texts: 'old 2' and 'prompt {min(after, 2)}' mean the same"):
        run("UnclipTextDiff", value(3), before, said_after, frames=2)


# ---- CLIP Text Encode Lines ----


def test_each_line_is_a_prompt_of_its_own(mine):
    found, said = run("UnclipTextEncodeLines", mine.clip, " a red circle \n\n\ta blue square\r\n")
    assert found.prompts == ("a red circle", "a blue square") and said is None
    expected = mine.clip.part.adapter.encode_text(list(found.prompts))
    torch.testing.assert_close(found.condition.embeds, expected.embeds, rtol=0, atol=1e-6)
    assert found.condition.null is not None


def test_lines_without_a_prompt_are_refused_and_unknown_words_told(mine):
    for nothing in ("", " \n\t\n"):
        with pytest.raises(InputError, match="no prompt"):
            run("UnclipTextEncodeLines", mine.clip, nothing)
    node = NODE_CLASS_MAPPINGS["UnclipTextEncodeLines"]()
    warnings = node.run(mine.clip, "a red dragon\na blue dragon")["ui"]["warnings"]
    assert len(warnings) == 1 and "'dragon'" in warnings[0]


# ---- PCA ----


def test_pca_fits_tells_its_shares_and_rebuilds():
    many, one = value(12), value(2, seed=3, prompts=("x", "y"))
    basis, told = run("UnclipPcaFit", many, dimensions=8)
    assert len(basis.basis.components) == 8 and basis.family == "test"
    assert told.startswith("12 embeddings\n1 dimensions: ") and "\n8 dimensions: " in told
    found = run("UnclipPcaReconstruct", basis, one, dimensions="4, 1 8")[0]
    expected = [reconstruct(fit_basis(many.embeds), one.embeds[i : i + 1], k) for i in range(2) for k in (4, 1, 8)]
    torch.testing.assert_close(found.embeds, torch.cat(expected))


@pytest.mark.parametrize("dimensions", ["", "  ,", "0", "1, -2", "two", "1.5", "²", "9" * 5000])
def test_what_is_no_list_of_dimensions_is_refused(dimensions):
    basis = BasisValue(fit_basis(rows(9)), "test")
    with pytest.raises(InputError, match="whole numbers from 1 on"):
        run("UnclipPcaReconstruct", basis, value(), dimensions=dimensions)
    assert "whole numbers" in NODE_CLASS_MAPPINGS["UnclipPcaReconstruct"].VALIDATE_INPUTS(dimensions)


def test_pca_refuses_one_embedding_too_many_dimensions_and_other_families():
    with pytest.raises(ValueError, match="at least two"):
        run("UnclipPcaFit", value(1))
    basis = BasisValue(fit_basis(rows(5)), "test")
    with pytest.raises(ValueError, match="has 4 dimensions"):
        run("UnclipPcaReconstruct", basis, value(), dimensions="5")
    with pytest.raises(FamilyError):
        run("UnclipPcaReconstruct", basis, value(family="another"), dimensions="1")


# ---- Embedding Similarity ----


def test_similarity_compares_images_with_texts_and_names_them():
    image, matrix, told = run("UnclipEmbeddingSimilarity", value(2, prompts=("a fox", "a cat")), text(3))
    assert image.ndim == 4 and image.shape[0] == 1 and image.shape[3] == 3 and matrix == told
    for word in ("image 1: a fox", "image 2: a cat", "1: prompt 1", "3: prompt 3"):
        assert word in matrix


def test_similarity_of_one_with_itself_has_ones_on_its_diagonal():
    matrix = run("UnclipEmbeddingSimilarity", value(2))[1]
    first, second = matrix.split("\n")[1:3]
    assert first.split()[2] == second.split()[3] == "1.000"


def test_similarity_refuses_two_families_and_crowds():
    with pytest.raises(FamilyError):
        run("UnclipEmbeddingSimilarity", value(), text(family="another"))
    with pytest.raises(InputError, match="'b' holds 65"):
        run("UnclipEmbeddingSimilarity", value(), value(65))


# ---- CLIP Vision Output ----


def test_an_embedding_goes_to_comfyuis_socket_and_back_in_the_familys_norm(mine):
    output, each, embeds = run("UnclipToClipVision", value(2))[:3]
    assert [torch.equal(one.image_embeds, value(2).embeds[i : i + 1]) for i, one in enumerate(each)] == [True, True]
    assert torch.equal(embeds, value(2).embeds) and embeds.dtype == torch.float32
    assert torch.equal(output.image_embeds, value(2).embeds) and output["image_embeds"] is output.image_embeds
    back = run("UnclipFromClipVision", mine.clip, output)[0]
    torch.testing.assert_close(back.embeds, torch.nn.functional.normalize(value(2).embeds, dim=1))
    assert (back.family, back.source) == ("test", "image")


@pytest.mark.parametrize(
    ("width", "said"),
    [
        (768, "768 numbers an embedding: for SD 2.1 unCLIP (l) and Stable Cascade, if made by OpenAI's ViT-L."),
        (1024, "for SD 2.1 unCLIP (h) and the IP-Adapters of SD 1.5"),
        (1280, "for SDXL (ReVision) and its IP-Adapters of ViT-bigG"),
        (192, "Embeddings of the 'test' family have 192 numbers. None of ComfyUI's own models takes them"),
    ],
)
def test_which_stock_models_take_the_width_is_said_before_one_fails_of_it(width, said):
    shown = UnclipToClipVision().run(EmbeddingValue(torch.ones(1, width), "test", "image"))["ui"]
    assert said in shown["text"][0] and bool(shown["warnings"]) == (width == 192)


def test_that_several_embeddings_in_one_output_are_mixed_is_said():
    text = UnclipToClipVision().run(EmbeddingValue(torch.ones(3, 768), "karlo", "image"))["ui"]["text"][0]
    assert "3 embeddings: unCLIPConditioning mixes them, but for those of 'one_each'" in text


def test_hidden_states_that_are_not_there_are_named():
    with pytest.raises(AttributeError, match="made of an image embedding alone: it has no 'last_hidden_state'"):
        _ = ClipVisionOutput(rows(1)).last_hidden_state


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (ClipVisionOutput(rows(1, width=9)), "of 9 numbers, this model's CLIP of 16"),
        (ClipVisionOutput(rows(1)[0]), r"no image embeddings \[B, D\], but \[16\]"),
        (ClipVisionOutput(rows(1) * math.nan), "NaN"),
        (object(), "NoneType"),
    ],
)
def test_outputs_of_other_models_are_refused(mine, output, words):
    with pytest.raises(InputError, match=words):
        run("UnclipFromClipVision", mine.clip, output)


# ---- Noise Interpolate ----


def test_noises_turn_evenly_and_keep_their_shape():
    a, b = (NoiseValue(torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(s)), "test") for s in (1, 2))
    found = run("UnclipNoiseInterpolate", a, b, t=0.0, frames=3)[0]
    assert found.noise.shape == (3, 3, 4, 4) and found.family == "test"
    torch.testing.assert_close(found.noise[[0, 2]], torch.cat([a.noise, b.noise]))
    torch.testing.assert_close(found.noise[1].flatten(), slerp(a.noise.flatten(1), b.noise.flatten(1), 0.5)[0])


def test_the_error_goes_from_that_of_one_noise_to_that_of_the_other():
    """A noise that was found of no image has none."""
    noise = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    found, drawn = NoiseValue(noise, "test", torch.tensor([0.1, 0.3])), NoiseValue(noise[:1] + 1, "test")
    between = run("UnclipNoiseInterpolate", found, drawn, t=0.0, frames=3)[0]
    torch.testing.assert_close(between.error, torch.tensor([0.1, 0.05, 0.0, 0.3, 0.15, 0.0]))
    assert run("UnclipNoiseInterpolate", drawn, drawn, t=0.5)[0].error.tolist() == [0.0]


def test_noises_of_other_sizes_and_families_are_refused():
    a = NoiseValue(torch.randn(1, 3, 4, 4), "test")
    with pytest.raises(InputError, match=r"\[3, 4, 4\] and \[3, 8, 8\]"):
        run("UnclipNoiseInterpolate", a, NoiseValue(torch.randn(1, 3, 8, 8), "test"))
    with pytest.raises(FamilyError):
        run("UnclipNoiseInterpolate", a, NoiseValue(torch.randn(1, 3, 4, 4), "another"))
    with pytest.raises(InputError, match="'t'"):
        run("UnclipNoiseInterpolate", a, a, t=math.nan)


# ---- scores ----


def test_the_priors_candidates_show_their_scores(mine):
    said = run("UnclipTextEncode", mine.clip, "a red circle")[0]
    kept, scores, told = run("UnclipPriorSample", mine.prior, said, seed=5, steps=2, candidates=3, keep=2)
    lines = scores.split("\n")
    assert told == f"{scores}\n2 steps: as set; guidance 2, ddim: the model's own" and len(lines) == 3
    assert [line.endswith("kept") for line in lines] == [True, True, False]
    numbers = [float(line.split()[1]) for line in lines]
    cosines = torch.nn.functional.cosine_similarity(kept.embeds, said.condition.embeds)
    assert numbers[:2] == pytest.approx(cosines.tolist(), abs=1e-4) and numbers == sorted(numbers, reverse=True)
    assert (kept.prompts, kept.seed) == (("a red circle",) * 2, 5)


def test_rerank_shows_the_scores_of_all_images(mine):
    said = run("UnclipTextEncodeLines", mine.clip, "a red circle\na blue square")[0]
    images = torch.rand(4, 16, 16, 3, generator=torch.Generator().manual_seed(0))
    kept, scores, told = run("UnclipRerank", mine.clip, said, images, keep=1)
    lines = scores.split("\n")
    assert told == scores and [lines[0], lines[3]] == ["a red circle:", "a blue square:"]
    best = [int(lines[i].split()[0][1:]) for i in (1, 4)]
    assert torch.equal(kept, torch.stack([images[best[0] - 1], images[2 + best[1] - 1]]))


# ---- Image Grid ----


def test_a_grid_takes_more_batches_and_fits_them_to_the_first():
    first, second = torch.zeros(2, 4, 6, 3), torch.full((1, 8, 12, 3), 0.5)
    grid = run("UnclipImageGrid", first, columns=3, images_3=second)[0]
    assert grid.shape == (1, 4, 18, 3)
    assert grid[:, :, :12].max() == 0 and torch.allclose(grid[:, :, 12:], torch.tensor(0.5))
    mixed = run("UnclipImageGrid", first, columns=3, images_2=torch.ones(1, 4, 6, 4))[0]
    assert mixed.shape == (1, 4, 18, 3)
