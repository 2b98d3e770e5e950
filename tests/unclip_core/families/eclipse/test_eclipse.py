"""ECLIPSE's priors: the numbers against a reference of a few lines, the folders, and the models they go with."""

import pytest
import torch
import torch.nn.functional as F
from eclipse_folders import HEAD, HEADS, LAYERS, random_prior
from safetensors.torch import load_file, save_file

from unclip.unclip_core.families.detect import family_of, is_supported
from unclip.unclip_core.families.download import needed_files, sources
from unclip.unclip_core.families.karlo.random_weights import small_size, write_random_karlo
from unclip.unclip_core.families.loading import load_model
from unclip.unclip_core.models import MissingPart
from unclip.unclip_core.pipelines import candidates_noise, encode_text, sample_decoder, sample_prior
from unclip.unclip_core.weights.files import CheckpointError


def reference(state, noise, embeds, states, mask):
    """The net, written down from its description alone."""

    def linear(x, name):
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    query = state["prd_embedding"].expand(len(noise), -1, -1)
    x = torch.cat(
        [
            linear(states, "encoder_hidden_states_proj"),
            linear(embeds, "embedding_proj")[:, None],
            linear(noise, "proj_in")[:, None],
            query,
        ],
        dim=1,
    )
    x = x + state["positional_embedding"]
    count = x.shape[1]
    bias = torch.full((count, count), -10000.0).triu(1) + F.pad((1 - mask.float()) * -10000.0, (0, 3))[:, None]
    for block in (f"transformer_blocks.{i}" for i in range(LAYERS)):
        h = norm(x, f"{block}.norm1")
        q, k, v = (
            linear(h, f"{block}.attn1.to_{name}").view(len(x), count, HEADS, HEAD).transpose(1, 2) for name in "qkv"
        )
        weights = (q @ k.transpose(2, 3) / HEAD**0.5 + bias[:, None]).softmax(-1)
        x = x + linear((weights @ v).transpose(1, 2).flatten(2), f"{block}.attn1.to_out.0")
        x = x + linear(F.gelu(linear(norm(x, f"{block}.norm3"), f"{block}.ff.net.0.proj")), f"{block}.ff.net.2")
    return linear(norm(x[:, -1], "norm_out"), "proj_to_clip_embeddings")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return random_prior(tmp_path_factory.mktemp("eclipse") / "prior")


@pytest.fixture(scope="module")
def karlo(tmp_path_factory):
    return load_model(write_random_karlo(tmp_path_factory.mktemp("models") / "karlo", small_size()))


@pytest.mark.parametrize("conventions", ["native", "diffusers"])
@pytest.mark.parametrize("noisy", [True, False])
def test_its_embedding_is_the_references(folder, karlo, conventions, noisy):
    prior = load_model(folder, conventions=conventions).prior
    text = encode_text(karlo.clip, ["a red cat", ""])
    drawn = sample_prior(prior, text, seeds=[1, 2], one_pass_noise=noisy)
    noise = candidates_noise([1, 2], 1, "prior").normal((16,)) * noisy
    state = load_file(folder / "diffusion_pytorch_model.safetensors")
    expected = reference(state, noise, text.embeds, text.states, text.mask)
    torch.testing.assert_close(drawn, expected, rtol=1e-5, atol=1e-5)


def test_it_stands_in_for_karlos_own_prior(folder, karlo):
    model = load_model(folder)
    model.reader.check()
    assert model.family == karlo.family == "karlo-16" and model.prior.one_pass
    text = encode_text(karlo.clip, ["a red cat"])
    embeds = sample_prior(model.prior, text, seeds=[1])
    assert sample_decoder(karlo.decoder, embeds, text=text, seeds=[1], steps=2).shape == (1, 16, 16, 3)
    for part in ("clip", "decoder", "upsampler"):
        with pytest.raises(MissingPart, match=f"no '{part}'"):
            getattr(model, part)


@pytest.mark.parametrize(("width", "family"), [(768, "karlo"), (1280, "kandinsky22")])
def test_its_width_tells_the_family(tmp_path, width, family):
    folder = random_prior(tmp_path / "prior", width)
    assert family_of(folder).name == "eclipse" and is_supported(folder)
    model = load_model(folder, dtype=torch.bfloat16)
    assert model.family == family and model.prior.net.query.dtype == torch.bfloat16


def test_a_pickle_and_a_file_without_statistics_load(tmp_path, folder, karlo):
    bare = random_prior(tmp_path / "prior", statistics=False)
    path = bare / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()
    text = encode_text(karlo.clip, ["a red cat"])
    drawn = [sample_prior(load_model(each).prior, text, seeds=[1]) for each in (bare, folder)]
    torch.testing.assert_close(*drawn, rtol=1e-5, atol=1e-5)


def test_pickles_of_others_beside_the_weights_are_not_opened(tmp_path, folder):
    """What trainers leave there: arguments as objects, links to checkpoints that are gone, optimizers of any size."""
    prior = random_prior(tmp_path / "prior")
    (prior / "training_args.bin").write_bytes(b"whatever")
    (prior / "optimizer.pt").symlink_to("gone")
    assert is_supported(prior) and family_of(prior).name == "eclipse"
    ours, theirs = (load_model(each).prior.net.state_dict() for each in (prior, folder))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"additional_embeddings": 5}, "'additional_embeddings' is '5'; supported is 3"),
        ({"num_layers": 10**9}, "layers must be at most 512"),
        ({"embedding_dim": [16]}, "embedding_dim: Input should be a valid integer"),
        ({"num_layers": 3}, r"missing 'transformer_blocks\.2"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(tmp_path, change, told):
    folder = random_prior(tmp_path / "prior", **change)
    with pytest.raises(CheckpointError, match=told):
        load_model(folder).reader.check()


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("time_embedding.linear_1.weight", "by diffusion"),
        ("embedding_control.weight", "lambda-ECLIPSE.*not supported.*download eclipse-kandinsky-2-2.*controlnet-depth"),
    ],
)
def test_priors_of_other_kinds_are_told_by_their_keys(tmp_path, key, told):
    path = random_prior(tmp_path / "prior") / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path) | {key: torch.zeros(2, 2)}
    save_file(tensors, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)
    with pytest.raises(CheckpointError, match=told):
        load_model(path.parent)


def test_it_can_neither_start_from_an_image_nor_read_other_texts(folder, karlo):
    prior, text = load_model(folder).prior, encode_text(karlo.clip, ["a"])
    with pytest.raises(ValueError, match="cannot start from an image"):
        sample_prior(prior, text, seeds=[1], start=torch.zeros(1, 16), strength=0.5)
    wide = type(text)(text.embeds, torch.cat([text.states, text.states], dim=2), text.mask)
    with pytest.raises(ValueError, match="77 tokens of 16 numbers.*given are 77, 32"):
        sample_prior(prior, wide, seeds=[1])


def test_a_folder_of_no_prior_is_not_its_own(tmp_path):
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    assert not is_supported(tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert not is_supported(tmp_path)
    with pytest.raises(CheckpointError, match=r"config\.json' is not valid JSON"):
        load_model(tmp_path)


def test_a_repository_that_is_one_component_is_downloaded_whole():
    assert {"eclipse-karlo", "eclipse-kandinsky-2-2"} <= set(sources())
    files = ["README.md", "config.json", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"]
    assert needed_files(files) == ["README.md", "config.json", "diffusion_pytorch_model.safetensors"]
