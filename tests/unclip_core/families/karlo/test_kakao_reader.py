"""kakaobrain's own files: small ones laid out by hand from diffusers' weights, read, run and converted."""

import shutil
from pathlib import Path

import pytest
import torch
from factories import error
from torch import nn

from unclip.unclip_core.bench.parity import oracle
from unclip.unclip_core.diffusion.noise import BatchNoise
from unclip.unclip_core.families.convert import convert
from unclip.unclip_core.families.detect import is_supported
from unclip.unclip_core.families.karlo.kakao_reader import weight_files
from unclip.unclip_core.families.loading import load_model
from unclip.unclip_core.pipelines import encode_text, sample_decoder, sample_prior, upscale
from unclip.unclip_core.weights.files import CheckpointError

WIDTH, CONTEXT, DIM = 64, 9, 16
CHANNELS, BLOCKS = (32, 64), 2
SHAPE = oracle.Shape(
    "native",
    DIM,
    CONTEXT,
    2,
    (2, 64, 2),
    CHANNELS,
    (False, True),
    BLOCKS,
    64,
    32,
    24,
    4,
    16,
    CHANNELS,
    BLOCKS,
    64,
    32,
)
TOLERANCE = 1e-5


def interleaved(parts, head_dim):
    """[A, in] matrices (or vectors) as one: of each head the rows of the first, then of the second …"""
    rows = []
    for head in range(parts[0].shape[0] // head_dim):
        rows += [part[head * head_dim : (head + 1) * head_dim] for part in parts]
    return torch.cat(rows)


def native_prior(state, head_dim):
    plain = {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "proj_in": "clip_img_proj",
        "embedding_proj": "text_emb_proj",
        "norm_out": "final_ln",
        "encoder_hidden_states_proj": "text_enc_proj",
        "proj_to_clip_embeddings": "out_proj",
    }
    native = {"model.positional_embedding": state["positional_embedding"], "model.prd_emb": state["prd_embedding"]}
    for kind in ("weight", "bias"):
        native |= {f"model.{b}.{kind}": state[f"{a}.{kind}"] for a, b in plain.items()}
        for n in range(2):
            old, new = f"transformer_blocks.{n}", f"model.transformer.resblocks.{n}"
            native[f"{new}.ln_1.{kind}"] = state[f"{old}.norm1.{kind}"]
            native[f"{new}.ln_2.{kind}"] = state[f"{old}.norm3.{kind}"]
            native[f"{new}.attn.c_proj.{kind}"] = state[f"{old}.attn1.to_out.0.{kind}"]
            native[f"{new}.mlp.c_fc.{kind}"] = state[f"{old}.ff.net.0.proj.{kind}"]
            native[f"{new}.mlp.c_proj.{kind}"] = state[f"{old}.ff.net.2.{kind}"]
            heads = [state[f"{old}.attn1.to_{x}.{kind}"] for x in "qkv"]
            native[f"{new}.attn.c_qkv.{kind}"] = interleaved(heads, head_dim)
    return native


def res_block(state, old, new):
    names = {
        "norm1": "in_layers.0",
        "conv1": "in_layers.2",
        "time_emb_proj": "emb_layers.1",
        "norm2": "out_layers.0",
        "conv2": "out_layers.3",
        "conv_shortcut": "skip_connection",
    }
    return {
        f"{new}.{b}.{kind}": state[f"{old}.{a}.{kind}"]
        for a, b in names.items()
        for kind in ("weight", "bias")
        if f"{old}.{a}.{kind}" in state
    }


def attention(state, old, new, head_dim):
    native = {}
    for kind in ("weight", "bias"):
        flat = {
            key: state[f"{old}.{key}.{kind}"]
            for key in ("to_q", "to_k", "to_v", "add_k_proj", "add_v_proj", "to_out.0")
        }
        joined = {
            "qkv": interleaved([flat["to_q"], flat["to_k"], flat["to_v"]], head_dim),
            "proj_out": flat["to_out.0"],
            "encoder_kv": interleaved([flat["add_k_proj"], flat["add_v_proj"]], head_dim),
        }
        native |= {
            f"{new}.{key}.{kind}": value[..., None] if kind == "weight" else value for key, value in joined.items()
        }
        native[f"{new}.norm.{kind}"] = state[f"{old}.group_norm.{kind}"]
    return native


def native_unet(state, prefix, attended, head_dim):
    """The two levels of SHAPE, block by block: down 1 2 | 3 down | 4 5; up 0 1 2 up | 3 4 5."""
    native = {}
    ends = {
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "conv_in": "input_blocks.0.0",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
    }
    for kind in ("weight", "bias"):
        native |= {f"{prefix}{b}.{kind}": state[f"{a}.{kind}"] for a, b in ends.items()}
    blocks = {
        "down_blocks.0.resnets.0": "input_blocks.1.0",
        "down_blocks.0.resnets.1": "input_blocks.2.0",
        "down_blocks.0.downsamplers.0": "input_blocks.3.0",
        "down_blocks.1.resnets.0": "input_blocks.4.0",
        "down_blocks.1.resnets.1": "input_blocks.5.0",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.resnets.1": "middle_block.2" if attended else "middle_block.1",
        "up_blocks.0.resnets.0": "output_blocks.0.0",
        "up_blocks.0.resnets.1": "output_blocks.1.0",
        "up_blocks.0.resnets.2": "output_blocks.2.0",
        "up_blocks.0.upsamplers.0": "output_blocks.2.2" if attended else "output_blocks.2.1",
        "up_blocks.1.resnets.0": "output_blocks.3.0",
        "up_blocks.1.resnets.1": "output_blocks.4.0",
        "up_blocks.1.resnets.2": "output_blocks.5.0",
    }
    attentions = {
        "down_blocks.1.attentions.0": "input_blocks.4.1",
        "down_blocks.1.attentions.1": "input_blocks.5.1",
        "mid_block.attentions.0": "middle_block.1",
        "up_blocks.0.attentions.0": "output_blocks.0.1",
        "up_blocks.0.attentions.1": "output_blocks.1.1",
        "up_blocks.0.attentions.2": "output_blocks.2.1",
    }
    for old, new in blocks.items():
        native |= res_block(state, old, prefix + new)
    for old, new in attentions.items() if attended else ():
        native |= attention(state, old, prefix + new, head_dim)
    return native


def native_decoder(state, projection, head_dim):
    names = {
        "embedding_proj": "text_feat_proj",
        "clip_image_embeddings_project_to_time_embeddings": "clip_emb",
        "clip_extra_context_tokens_proj": "clip_tok_proj",
        "encoder_hidden_states_proj": "text_seq_proj.0",
        "text_encoder_hidden_states_norm": "text_seq_proj.1",
    }
    native = {"model.cf_param": projection["learned_classifier_free_guidance_embeddings"]}
    native |= {f"model.{b}.{kind}": projection[f"{a}.{kind}"] for a, b in names.items() for kind in ("weight", "bias")}
    return native | native_unet(state, "model.", True, head_dim)


def build_openai_clip():
    """OpenAI's CLIP as open_clip lays it out, small but with the real vocabulary, random."""
    from open_clip.model import CLIP

    model = CLIP(
        DIM,
        {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16, "head_width": 64},
        {"context_length": CONTEXT, "vocab_size": 49408, "width": DIM, "heads": 1, "layers": 2},
        quick_gelu=True,
    )
    return oracle.randomise(model, 5)


class Archive(nn.Module):
    """Parameters under given names, so that they can be put into a TorchScript archive."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def scripted(state):
    root = Archive()
    for key, value in state.items():
        *path, name = key.split(".")
        owner = root
        for step in path:
            if not hasattr(owner, step):
                owner.add_module(step, Archive())
            owner = getattr(owner, step)
        owner.register_buffer(name, value)
    return torch.jit.script(root)


@pytest.fixture(scope="module")
def oracle_parts(tmp_path_factory):
    return oracle.components(SHAPE, tmp_path_factory.mktemp("oracle"), seed=4)


@pytest.fixture(scope="module")
def openai_clip():
    return build_openai_clip()


@pytest.fixture(scope="module")
def kakao(tmp_path_factory, oracle_parts, openai_clip):
    folder = tmp_path_factory.mktemp("kakao")
    states = {
        name: oracle_parts[name].state_dict()
        for name in ("prior", "decoder", "text_proj", "super_res_first", "super_res_last")
    }
    torch.save({"state_dict": native_prior(states["prior"], 64)}, folder / "a.ckpt")  # names do not matter
    torch.save({"state_dict": native_decoder(states["decoder"], states["text_proj"], 64)}, folder / "b.ckpt")
    both = native_unet(states["super_res_first"], "model_first_steps.", False, 64)
    both |= native_unet(states["super_res_last"], "model_last_step.", False, 64)
    torch.save({"state_dict": both}, folder / "c.ckpt")
    torch.save((states["prior"]["clip_mean"][0], states["prior"]["clip_std"][0]), folder / "d.th")
    clip = {key: value for key, value in openai_clip.state_dict().items() if key != "attn_mask"}
    clip |= {name: torch.tensor(1) for name in ("input_resolution", "context_length", "vocab_size")}
    scripted(clip).save(str(folder / "e.pt"))
    (folder / "decoder.yaml").write_text(
        "model: {type: t2i-decoder, hparams: {image_size: 16, num_head_channels: 64}}\n"
        "diffusion: {steps: 1000, learn_sigma: true, predict_xstart: false, noise_schedule: squaredcos_cap_v2}\n"
    )
    return folder


def test_files_are_told_by_their_keys(kakao):
    assert {kind: path.name for kind, path in weight_files(kakao).items()} == {
        "prior": "a.ckpt",
        "decoder": "b.ckpt",
        "super_res": "c.ckpt",
        "stats": "d.th",
        "clip": "e.pt",
    }


def test_links_to_nothing_and_folders_are_passed_over(broken):
    (broken / "f.ckpt").symlink_to("gone")
    (broken / "last.ckpt").mkdir()
    assert sorted(path.name for path in weight_files(broken).values()) == ["a.ckpt", "b.ckpt", "c.ckpt", "d.th", "e.pt"]
    assert is_supported(broken) and load_model(broken).reader.parts == {"clip", "prior", "decoder", "upsampler"}


@torch.no_grad()
def test_clip_is_open_clips(kakao, openai_clip):
    from open_clip.tokenizer import SimpleTokenizer

    adapter = load_model(kakao).clip.adapter
    prompts = ["a red cat", "the mat, and more words than fit in here"]
    ids = SimpleTokenizer(context_length=CONTEXT)(prompts)
    assert error(encode_text(load_model(kakao).clip, prompts).embeds, openai_clip.encode_text(ids)) < TOLERANCE
    images = torch.rand(2, 32, 32, 3, generator=torch.Generator().manual_seed(2))
    pixels = adapter.image_input(images)
    assert error(adapter.encode_image(images), openai_clip.encode_image(pixels)) < TOLERANCE


@torch.no_grad()
def test_nets_compute_what_diffusers_computes(kakao, oracle_parts):
    model, generator = load_model(kakao), torch.Generator().manual_seed(3)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    t = torch.tensor([999, 41])
    x, embeds, states = draw(2, DIM), draw(2, DIM), draw(2, CONTEXT, DIM)
    mask = torch.arange(CONTEXT)[None] < torch.tensor([[4], [9]])
    reference = oracle_parts["prior"](x, t, proj_embedding=embeds, encoder_hidden_states=states, attention_mask=mask)
    assert error(model.prior.net(x, t, embeds, states, mask), reference.predicted_image_embedding) < TOLERANCE
    assert error(model.prior.net.denormalize_embeds(x), oracle_parts["prior"].post_process_latents(x)) < TOLERANCE
    tokens, added = oracle_parts["text_proj"](
        image_embeddings=x, prompt_embeds=embeds, text_encoder_hidden_states=states, do_classifier_free_guidance=False
    )
    wide = torch.nn.functional.pad(mask, (4, 0), value=True)
    noisy = draw(2, 3, 16, 16)
    reference = oracle_parts["decoder"](
        noisy, t, encoder_hidden_states=tokens, class_labels=added, attention_mask=wide
    ).sample
    condition = model.decoder.net.condition(x, embeds, states, mask)
    assert error(model.decoder.net(noisy, t, condition), reference) < TOLERANCE
    noisy, low = draw(2, 3, 64, 64), draw(2, 3, 64, 64)
    for name, net in (("super_res_first", model.upsampler.net), ("super_res_last", model.upsampler.last)):
        reference = oracle_parts[name](torch.cat([noisy, low], dim=1), t).sample
        assert error(net(noisy, t, low), reference) < TOLERANCE


def weights(model):
    """Every tensor of the nets, by part and name."""
    nets = {
        "prior": model.prior.net,
        "decoder": model.decoder.net,
        "first": model.upsampler.net,
        "last": model.upsampler.last,
    }
    return {(part, name): tensor.clone() for part, net in nets.items() for name, tensor in net.state_dict().items()}


def draw_images(folder):
    model = load_model(folder)
    text, noise = encode_text(model.clip, ["a red cat!"]), BatchNoise(torch.Generator().manual_seed(1), 1)
    run = {"steps": 3, "seeds": [0], "sampler": "ddpm", "noise": noise}
    embeds = sample_prior(model.prior, text, guidance_scale=4.0, **run)
    small = sample_decoder(model.decoder, embeds, text=text, guidance_scale=8.0, **run)
    return upscale(model.upsampler, small, **run)


@pytest.mark.slow
def test_converted_it_loads_without_them_and_draws_the_same(kakao, tmp_path):
    before, held = draw_images(kakao), weights(load_model(kakao))
    moved = Path(shutil.copytree(kakao, tmp_path / "moved"))
    target = convert(moved, tmp_path / "converted")
    shutil.rmtree(moved)
    assert before.shape == (1, 64, 64, 3)
    converted = weights(load_model(target))
    assert converted.keys() == held.keys()
    assert all(torch.equal(converted[name], tensor) for name, tensor in held.items())
    # How bytes lie in memory decides which kernels run, and random nets make much of last bits: hence the mean.
    assert (draw_images(target) - before).abs().mean() < 4e-5


@pytest.mark.slow
def test_native_mode_clips_the_prior_at_ten_in_either_format(kakao, tmp_path):
    target = convert(kakao, tmp_path / "converted")
    for folder in (kakao, target):
        assert load_model(folder).prior.diffusion.clip_range == 10.0
        assert load_model(folder, conventions="diffusers").prior.diffusion.clip_range == 5.0
        assert load_model(folder).decoder.diffusion.variance == "learned_range"
        assert load_model(folder).decoder.image_size == 16


@pytest.fixture
def broken(kakao, tmp_path):
    return Path(shutil.copytree(kakao, tmp_path / "broken"))


def test_what_is_missing_is_named(broken):
    (broken / "d.th").unlink()
    with pytest.raises(CheckpointError, match="no file with Karlo's stats"):
        _ = load_model(broken).prior
    (broken / "a.ckpt").unlink()
    with pytest.raises(CheckpointError, match="has no 'prior'; it has clip, decoder, upsampler"):
        _ = load_model(broken).prior


def test_a_misshapen_tensor_is_named(broken):
    held = torch.load(broken / "a.ckpt", weights_only=True)
    held["state_dict"]["model.out_proj.bias"] = torch.zeros(3)
    torch.save(held, broken / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"a\.ckpt.*model\.out_proj\.bias.*\[3\].*\[16\]"):
        _ = load_model(broken).prior


def test_a_truncated_file_is_named(broken):
    data = (broken / "b.ckpt").read_bytes()
    (broken / "b.ckpt").write_bytes(data[: len(data) // 2])
    with pytest.raises(CheckpointError, match=r"b\.ckpt"):
        load_model(broken)


def test_two_of_a_kind_are_refused(broken):
    shutil.copy(broken / "a.ckpt", broken / "z.ckpt")
    with pytest.raises(CheckpointError, match=r"a\.ckpt.*z\.ckpt.*leave only one"):
        load_model(broken)


def test_a_yaml_that_is_none_is_named(broken):
    (broken / "decoder.yaml").write_text("model: [")
    with pytest.raises(CheckpointError, match=r"decoder\.yaml"):
        load_model(broken)


def test_what_another_system_leaves_beside_a_yaml_is_passed_over(broken):
    (broken / "configs").mkdir()
    for place in (broken, broken / "configs"):
        (place / "._decoder.yaml").write_bytes(b"\0\5\26\7\xff\xfe")
    assert load_model(broken).decoder.image_size == 16


def test_statistics_of_another_width_are_refused(broken):
    torch.save((torch.zeros(5), torch.ones(5)), broken / "d.th")
    with pytest.raises(CheckpointError, match=r"d\.th.*\[5\].*\[16\]"):
        _ = load_model(broken).prior
