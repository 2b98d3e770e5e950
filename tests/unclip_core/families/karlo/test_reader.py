"""Karlo's folders on the disk: what loads, what is refused and how legibly, and what `convert` writes."""

import gc
import json
import shutil
import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file

from unclip.unclip_core.diffusion.noise import sample_seeds
from unclip.unclip_core.diffusion.samplers import SAMPLERS
from unclip.unclip_core.families.convert import convert
from unclip.unclip_core.families.karlo.names import PRIOR, diffusers_key_map
from unclip.unclip_core.families.karlo.random_weights import small_size, write_random_karlo
from unclip.unclip_core.families.karlo.reader import family_of
from unclip.unclip_core.families.loading import SHAPES, load_model
from unclip.unclip_core.nets.prior import PriorTransformer
from unclip.unclip_core.pipelines import encode_image, encode_text, sample_decoder, sample_prior, upscale
from unclip.unclip_core.weights.components import open_component
from unclip.unclip_core.weights.files import CheckpointError
from unclip.unclip_core.weights.net_weights import load_net

WEIGHTS = "diffusion_pytorch_model.safetensors"
NETS = ("prior", "decoder", "text_proj", "super_res_first", "super_res_last", "text_encoder", "image_encoder")
PART_OF = {
    "prior": "prior",
    "decoder": "decoder",
    "text_proj": "decoder",
    "super_res_first": "upsampler",
    "super_res_last": "upsampler",
    "text_encoder": "clip",
    "image_encoder": "clip",
}


@pytest.fixture(scope="module")
def karlo(tmp_path_factory):
    return write_random_karlo(tmp_path_factory.mktemp("models") / "karlo", small_size())


@pytest.fixture
def broken(karlo, tmp_path):
    """A copy to break."""
    return shutil.copytree(karlo, tmp_path / "broken")


def weights(folder, component):
    return next((folder / component).glob("*.safetensors"))


def rewrite(folder, component, change):
    path = weights(folder, component)
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def complaint(folder, component):
    with pytest.raises(CheckpointError) as caught:
        getattr(load_model(folder), PART_OF[component])
    return str(caught.value)


def draw(folder, **options):
    model = load_model(folder, **options)
    text, seeds = encode_text(model.clip, ["a red cat", "!"]), sample_seeds(3, 2)
    embeds = sample_prior(model.prior, text, steps=3, guidance_scale=4.0, seeds=seeds, sampler="ddpm")
    small = sample_decoder(model.decoder, embeds, text=text, steps=3, guidance_scale=8.0, seeds=seeds, sampler="ddpm")
    return upscale(model.upsampler, small, steps=2, seeds=seeds, sampler="ddpm")


def alike(ours, reference):
    """The same but for the last bits: how bytes lie in memory decides which kernels run."""
    return bool((ours - reference).abs().max() < 1e-3)


@pytest.fixture(scope="module")
def drawn(karlo):
    return draw(karlo)


def test_it_draws(drawn):
    assert drawn.shape == (2, 64, 64, 3)
    assert torch.isfinite(drawn).all() and drawn.std() > 0.01
    assert not alike(drawn[:1], drawn[1:])


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["native", "diffusers"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_runs_in_both_modes(karlo, sampler, mode):
    model = load_model(karlo, conventions=mode)
    text = encode_text(model.clip, ["cat"])
    for steps in (1, 2, 21):  # the last is the first count at which the two modes visit other timesteps
        embeds = sample_prior(model.prior, text, steps=steps, guidance_scale=4.0, seeds=[1], sampler=sampler)
        small = sample_decoder(
            model.decoder, embeds, text=text, steps=steps, guidance_scale=8.0, seeds=[1], sampler=sampler, eta=0.5
        )
        large = upscale(model.upsampler, small, steps=min(steps, 3), seeds=[1], sampler=sampler)
        assert large.shape == (1, 64, 64, 3) and torch.isfinite(embeds).all() and torch.isfinite(large).all()


def test_plans_end_where_each_kind_of_sampler_needs_it(karlo):
    """Karlo's own plan ends at t = 0; solvers of order 2 extrapolate too far over that last jump."""
    for mode in ("native", "diffusers"):
        diffusion = load_model(karlo, conventions=mode).prior.diffusion
        for sampler, last in (("ddpm", 0), ("ddim", 0), ("dpmpp_2m", 39), ("dpmpp_sde", 39)):
            times = diffusion.steps(25, sampler).timesteps
            assert (len(times), int(times[0]), int(times[-1])) == (25, 999, last)


def test_variations_take_the_empty_prompt(karlo):
    """Without a text the decoder hears what CLIP says of "", and nothing else."""
    model = load_model(karlo)
    embeds = encode_image(model.clip, torch.rand(1, 40, 50, 3, generator=torch.Generator().manual_seed(1)))
    run = {"steps": 2, "guidance_scale": 8.0, "seeds": [5], "sampler": "ddpm"}
    alone = sample_decoder(model.decoder, embeds, **run)
    assert alike(alone, sample_decoder(model.decoder, embeds, text=encode_text(model.clip, [""]), **run))
    assert not alike(alone, sample_decoder(model.decoder, embeds, text=encode_text(model.clip, ["cat"]), **run))


def test_families_are_told_by_the_width_of_the_embeddings(karlo):
    assert load_model(karlo).family == "karlo-16"
    assert family_of(768) == "karlo"


# ---- the same weights in other files ----


def test_bin_files(karlo, broken, drawn):
    for name in NETS:
        path = weights(broken, name)
        torch.save(load_file(path), path.with_suffix(".bin"))
        path.unlink()
    assert alike(draw(broken), drawn)


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_shards(broken, drawn, suffix):
    path = weights(broken, "decoder")
    tensors = load_file(path)
    path.unlink()
    names = sorted(tensors)
    halves = {f"part-{i}{suffix}": names[i::2] for i in range(2)}
    for name, keys in halves.items():
        held = {key: tensors[key].contiguous() for key in keys}
        save_file(held, path.parent / name) if suffix == ".safetensors" else torch.save(held, path.parent / name)
    index = {"weight_map": {key: name for name, keys in halves.items() for key in keys}}
    (path.parent / f"anything{suffix}.index.json").write_text(json.dumps(index))
    assert alike(draw(broken), drawn)
    (path.parent / f"part-1{suffix}").unlink()
    assert "part-1" in complaint(broken, "decoder")


def test_a_variant_does_not_replace_the_plain_file(broken, drawn):
    path = weights(broken, "prior")
    half = {key: value.half() for key, value in load_file(path).items()}
    save_file(half, path.with_name("diffusion_pytorch_model.fp16.safetensors"))
    assert alike(draw(broken), drawn)


def test_position_ids_are_ignored_in_clip_only(broken, drawn):
    ids = torch.arange(77)[None]
    rewrite(broken, "text_encoder", lambda t: t.update({"text_model.embeddings.position_ids": ids}))
    assert alike(draw(broken), drawn)
    rewrite(broken, "prior", lambda t: t.update({"position_ids": ids}))
    assert "position_ids" in complaint(broken, "prior")


def test_old_configurations_lack_keys(broken, drawn):
    """What a file does not say takes the libraries' defaults."""
    for name, keys in {
        "decoder": ("act_fn", "flip_sin_to_cos", "freq_shift", "norm_eps", "only_cross_attention"),
        "super_res_first": ("act_fn", "norm_eps", "resnet_time_scale_shift"),
        "prior": ("additional_embeddings", "dropout", "num_embeddings"),
        "text_encoder": ("layer_norm_eps", "hidden_act", "max_position_embeddings"),
        "text_proj": ("clip_extra_context_tokens",),
    }.items():
        path = broken / name / "config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps({key: value for key, value in config.items() if key not in keys}))
    assert alike(draw(broken), drawn)


# ---- what is refused ----


@pytest.mark.parametrize("component", NETS)
def test_a_missing_tensor(broken, component):
    key = sorted(load_file(weights(broken, component)))[3]
    rewrite(broken, component, lambda tensors: tensors.pop(key))
    said = complaint(broken, component)
    assert f"missing '{key}'" in said and component in said


@pytest.mark.parametrize("component", NETS)
def test_an_extra_tensor(broken, component):
    rewrite(broken, component, lambda tensors: tensors.update(stranger=torch.zeros(7)))
    assert "unknown 'stranger' [7]" in complaint(broken, component)


@pytest.mark.parametrize("component", NETS)
def test_a_misshapen_tensor_is_named_with_both_shapes(broken, component):
    tensors = load_file(weights(broken, component))
    key = next(key for key in sorted(tensors) if tensors[key].ndim == 2)
    rewrite(broken, component, lambda tensors: tensors.update({key: torch.zeros(3, 5)}))
    said = complaint(broken, component)
    assert key in said and "[3, 5]" in said and str(list(tensors[key].shape)) in said and component in said


@pytest.mark.parametrize("component", NETS)
def test_a_truncated_file(broken, component):
    path = weights(broken, component)
    path.write_bytes(path.read_bytes()[:-9])
    assert path.name in (said := complaint(broken, component)) and "truncated" in said


def test_damage_and_foreign_pickles(broken):
    rewrite(broken, "prior", lambda tensors: tensors["proj_in.bias"].fill_(torch.nan))
    assert "proj_in.bias" in (said := complaint(broken, "prior")) and "NaN" in said
    path = weights(broken, "decoder")
    path.unlink()
    for content in (b"", b"garbage", b"\x80\x04cposix\nsystem\n(S'true'\ntR."):
        path.with_suffix(".bin").write_bytes(content)
        assert path.with_suffix(".bin").name in complaint(broken, "decoder")
    torch.save([1, 2], path.with_suffix(".bin"))
    assert "no dictionary of tensors" in complaint(broken, "decoder")
    path.with_suffix(".bin").unlink()
    assert "holds no weights" in complaint(broken, "decoder")


def test_a_component_that_is_not_there(broken):
    shutil.rmtree(broken / "prior")
    assert "has no 'prior'" in complaint(broken, "prior")
    assert load_model(broken).decoder.image_size == 16  # what is there still loads


def test_a_folder_for_text_cannot_read_images_and_says_so(tmp_path):
    folder = write_random_karlo(tmp_path / "text", small_size(), vision=False)
    with pytest.raises(ValueError, match="no image encoder.*variations"):
        encode_image(load_model(folder).clip, torch.zeros(1, 8, 8, 3))


def test_a_folder_for_variations_has_no_prior_and_says_so(tmp_path):
    folder = write_random_karlo(tmp_path / "variations", small_size(), prior=False)
    with pytest.raises(CheckpointError, match="'variations' has no 'prior'"):
        _ = load_model(folder).prior


@pytest.mark.parametrize(
    ("component", "change", "told"),
    [
        ("decoder", {"class_embed_type": "timestep"}, "class_embed_type"),
        ("decoder", {"down_block_types": ["DownBlock2D", "DownBlock2D"]}, "DownBlock2D"),
        ("decoder", {"up_block_types": ["ResnetUpsampleBlock2D"] * 2}, "does not mirror"),
        ("decoder", {"block_out_channels": None}, "block_out_channels"),
        ("decoder", {"attention_head_dim": [8, 16]}, "attention_head_dim"),
        ("decoder", {"addition_embed_type": "text"}, "addition_embed_type"),
        ("decoder", {"cross_attention_dim": 99}, "99"),
        ("prior", {"num_attention_heads": 0}, "positive"),
        ("prior", {"embedding_proj_norm_type": "layer"}, "embedding_proj_norm_type"),
        ("super_res_first", {"resnet_time_scale_shift": "ada_group"}, "ada_group"),
        ("text_encoder", {"hidden_act": "relu"}, "relu"),
        ("image_encoder", {"patch_size": 7}, "image_size 32 is not a multiple of patch_size 7"),
    ],
)
def test_a_configuration_that_our_nets_cannot_follow(broken, component, change, told):
    path = broken / component / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    said = complaint(broken, component)
    assert told in said and component in said


@pytest.mark.parametrize(
    "index",
    [
        {"_class_name": "KandinskyV22Pipeline"},
        {"_class_name": "UnCLIPPipeline"},
        {"_class_name": ["x"]},
        {},
    ],
)
def test_an_index_of_something_else(broken, index):
    (broken / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"model_index\.json"):
        load_model(broken)


def test_unknown_conventions_are_refused(karlo):
    with pytest.raises(ValueError, match="known: native, diffusers"):
        load_model(karlo, conventions="other")


# ---- memory ----


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_weights_are_mapped_where_they_need_no_cast_and_cast_where_they_do(broken, suffix):
    """A mapped tensor lies where the file's bytes lie: reading it twice gives one place, and the net's is the same."""
    if suffix == ".bin":
        path = weights(broken, "prior")
        torch.save(load_file(path), path.with_suffix(suffix))
        path.unlink()
    source, key_map = open_component(broken / "prior"), diffusers_key_map(PRIOR)
    place = source.read("prd_embedding").data_ptr()
    assert source.read("prd_embedding").data_ptr() == place

    def read(dtype):
        return load_net(lambda: PriorTransformer(small_size().prior), key_map, source, dtype, keep=("clip_std",))

    mapped, cast = read(torch.float32), read(torch.bfloat16)
    assert mapped.query.data_ptr() == place != cast.query.data_ptr()
    assert (cast.query.dtype, cast.clip_std.dtype) == (torch.bfloat16, torch.float32)


def test_nothing_is_read_before_it_is_needed(broken):
    """A model with a broken prior opens, and its decoder loads."""
    weights(broken, "prior").write_bytes(b"")
    model = load_model(broken)
    assert model.decoder.image_size == 16
    with pytest.raises(CheckpointError):
        _ = model.prior


# ---- convert ----


def test_converting_keeps_the_numbers(karlo, broken, tmp_path, drawn):
    for name in NETS:
        path = weights(broken, name)
        torch.save(load_file(path), path.with_suffix(".bin"))
        path.unlink()
    target = convert(broken, tmp_path / "converted")
    assert not list(target.rglob("*.bin"))
    shutil.rmtree(broken)
    assert alike(draw(target), drawn)
    for name in NETS:
        before, after = load_file(weights(karlo, name)), load_file(weights(target, name))
        assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize(("dtype", "kind"), [("fp16", torch.float16), ("bf16", torch.bfloat16)])
def test_converting_to_half_precision(karlo, tmp_path, dtype, kind, drawn):
    target = convert(karlo, tmp_path / dtype, dtype)
    tensors = load_file(weights(target, "decoder"))
    assert {value.dtype for value in tensors.values()} == {kind}
    original = load_file(weights(karlo, "decoder"))
    assert all(torch.equal(tensors[key], original[key].to(kind)) for key in tensors)
    assert load_file(weights(target, "prior"))["clip_std"].dtype == torch.float32
    assert weights(target, "decoder").stat().st_size < 0.55 * weights(karlo, "decoder").stat().st_size
    assert (draw(target) - drawn).abs().mean() < 0.1


def test_converting_refuses_what_would_be_lost(karlo, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").touch()
    with pytest.raises(CheckpointError, match="not empty"):
        convert(karlo, tmp_path / "there")
    with pytest.raises(ValueError, match="fp32, fp16, bf16"):
        convert(karlo, tmp_path / "new", "fp8")
    with pytest.raises(CheckpointError, match="nothing to convert"):
        convert(load_model(SHAPES).folder, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_clip_is_shared_while_it_is_held_and_does_not_stay(karlo):
    reader = load_model(karlo).reader
    first, second = reader.clip(), reader.clip()
    assert first.adapter is second.adapter
    gone = weakref.ref(first.adapter)
    expected = encode_text(first, ["red"]).embeds
    del first, second
    gc.collect()
    assert gone() is None
    assert torch.equal(encode_text(reader.clip(), ["red"]).embeds, expected)


def test_the_empty_prompt_is_read_once(karlo, monkeypatch):
    """Variations need it for every image, and CLIP for nothing else."""
    reader, read = load_model(karlo).reader, []
    tower = reader._tower
    monkeypatch.setattr(reader, "_tower", lambda name, *rest: read.append(name) or tower(name, *rest))
    decoder = reader.decoder()
    first, second = decoder.blank_text(), decoder.blank_text()
    assert read == ["text_encoder", "image_encoder"] and first is second
