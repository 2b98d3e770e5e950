"""LoRAs of diffusers' scripts, in both styles: added to a prior's and a decoder's weights under diffusers' names."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from unclip.unclip_core.families.kandinsky22.random_prior import small_size, write_random_prior
from unclip.unclip_core.families.karlo.names import PRIOR, UNET, renamed
from unclip.unclip_core.families.karlo.random_weights import small_size as karlo_size
from unclip.unclip_core.families.karlo.random_weights import write_random_karlo
from unclip.unclip_core.families.loading import load_model
from unclip.unclip_core.lora.delta import apply_lora
from unclip.unclip_core.lora.files import read_lora
from unclip.unclip_core.weights.files import CheckpointError

RANK = 3
LAYERS = {"to_q": "to_q", "to_k": "to_k", "to_v": "to_v", "to_out": "to_out.0"}
ADDED = {"add_k_proj": "add_k_proj", "add_v_proj": "add_v_proj"}
STYLES = {
    "2023": lambda block, layer: f"{block}.processor.{layer}_lora",
    "2023 with a prefix": lambda block, layer: f"PART.{block}.processor.{layer}_lora",
    "later": lambda block, layer: f"{block}.{ {**LAYERS, **ADDED}[layer] }.lora",
    "lora_layer": lambda block, layer: f"PART.{block}.{ {**LAYERS, **ADDED}[layer] }.lora_layer",
}


def blocks_of(state):
    """Attention blocks by diffusers' names, with the layers that each has."""
    names = {key.removesuffix(".to_q.weight") for key in state if key.endswith(".to_q.weight")}
    added = {name for name in names if f"{name}.add_k_proj.weight" in state}
    return {name: {**LAYERS, **(ADDED if name in added else {})} for name in sorted(names)}


def written(path, state, style, part):
    """A LoRA over all attention of `state`, saved as `path`; returns the weights that it makes of them."""
    generator, merged, tensors = torch.Generator().manual_seed(1), dict(state), {}
    for block, layers in blocks_of(state).items():
        for layer, name in layers.items():
            weight = state[f"{block}.{name}.weight"]
            down = torch.randn(RANK, weight.shape[1], generator=generator) * 0.3
            up = torch.randn(len(weight), RANK, generator=generator) * 0.3
            key = STYLES[style](block, layer).replace("PART", part)
            tensors |= {f"{key}.down.weight": down, f"{key}.up.weight": up}
            merged[f"{block}.{name}.weight"] = weight + 0.5 * up @ down
    torch.save(tensors, path) if path.suffix == ".bin" else save_file(tensors, path)
    return merged


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    return {
        "prior": write_random_prior(place / "prior", small_size()),
        "decoder": write_random_karlo(place / "karlo", karlo_size()),
    }


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("stage", ["prior", "decoder"])
@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_its_change_is_up_times_down(folders, tmp_path, style, stage, suffix):
    weights = folders[stage] / stage / "diffusion_pytorch_model.safetensors"
    state = load_file(weights)
    merged = written(tmp_path / f"lora{suffix}", state, style, "prior" if stage == "prior" else "unet")
    lora = read_lora(tmp_path / f"lora{suffix}")
    assert lora.stage == stage and len(lora.factors) == sum(map(len, blocks_of(state).values())) > 4
    net = apply_lora(getattr(load_model(folders[stage]), stage), lora, 0.5).net
    ours = (net if stage == "prior" else net.unet).state_dict()
    rules = PRIOR if stage == "prior" else UNET
    for key, value in ours.items():
        torch.testing.assert_close(value, merged[renamed(key, rules)], rtol=1e-5, atol=1e-6)


def test_half_a_pair_is_refused(folders, tmp_path):
    path = tmp_path / "lora.safetensors"
    state = load_file(folders["prior"] / "prior" / "diffusion_pytorch_model.safetensors")
    written(path, state, "2023", "prior")
    tensors = load_file(path)
    del tensors[next(key for key in tensors if "up" in key)]
    save_file(tensors, tmp_path / "half.safetensors")
    with pytest.raises(CheckpointError, match="not whole"):
        read_lora(tmp_path / "half.safetensors")
