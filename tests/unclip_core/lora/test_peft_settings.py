"""What peft's configuration may say: adapters are either applied as peft itself applies them, or refused by name."""

import copy
import json

import peft
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from unclip.unclip_core.lora.files import read_lora
from unclip.unclip_core.weights.files import CheckpointError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.to_q, self.to_k = nn.Linear(16, 16), nn.Linear(16, 12)

    def forward(self, x):
        return self.to_k(self.to_q(x))


@pytest.fixture(scope="module")
def base():
    torch.manual_seed(3)
    return Net()


def trained_by_peft(base, folder, **settings):
    """An adapter of peft's on a copy of the base, after something like a training; returns peft's merged weights."""
    config = peft.LoraConfig(r=4, lora_alpha=6, target_modules=["to_q", "to_k"], **settings)
    theirs = peft.get_peft_model(copy.deepcopy(base), config)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    theirs.save_pretrained(folder)
    return theirs.merge_and_unload().state_dict()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"init_lora_weights": False},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": "orthogonal"},
        {"rank_pattern": {"to_q": 2}},
        {"lora_dropout": 0.1, "use_rslora": True},
    ],
)
def test_what_is_a_plain_lora_is_applied_as_peft_does(base, tmp_path, settings):
    merged = trained_by_peft(base, tmp_path, **settings)
    lora = read_lora(tmp_path / "adapter_model.safetensors")
    assert set(lora.factors) == {"to_q", "to_k"}
    for name in lora.factors:
        changed = base.get_submodule(name).weight + lora.delta(name, torch.device("cpu"), torch.float32)
        torch.testing.assert_close(changed, merged[f"{name}.weight"], rtol=1e-5, atol=1e-6)
        assert (changed - base.get_submodule(name).weight).abs().max() > 0.01


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora"])
def test_initialisations_that_change_the_base_are_refused(base, tmp_path, init):
    """On the base as it is B A gives other weights than peft has: that is why."""
    merged = trained_by_peft(base, tmp_path, init_lora_weights=init)
    with pytest.raises(CheckpointError, match=f"'init_lora_weights': '{init}'"):
        read_lora(tmp_path / "adapter_model.safetensors")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {"init_lora_weights": True}))
    lora = read_lora(tmp_path / "adapter_model.safetensors")
    blindly = base.to_q.weight + lora.delta("to_q", torch.device("cpu"), torch.float32)
    assert (blindly - merged["to_q.weight"]).abs().max() > 0.01


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("init_lora_weights", "loftq"),
        ("init_lora_weights", "corda"),
        ("init_lora_weights", "eva"),
        ("init_lora_weights", "lora_ga"),
        ("init_lora_weights", ["pissa"]),
        ("loftq_config", {"loftq_bits": 4}),
        ("eva_config", {"rho": 2.0}),
        ("alpha_pattern", {"to_q": 8}),
        ("bias", "all"),
        ("lora_bias", True),
        ("use_dora", True),
        ("megatron_config", {"tensor_model_parallel_size": 2}),
        ("a_setting_of_tomorrow", 3),
        ("a_setting_of_tomorrow", "on"),
    ],
)
def test_what_is_not_known_to_be_harmless_is_refused_by_name(tmp_path, key, value):
    save_file({"q.lora_A.weight": torch.ones(2, 3), "q.lora_B.weight": torch.ones(4, 2)}, tmp_path / "a.safetensors")
    config = {"peft_type": "LORA", "lora_alpha": 4, "r": 2, "another_of_tomorrow": None}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert read_lora(tmp_path / "a.safetensors").scales == {"q": 2.0}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(CheckpointError, match=key):
        read_lora(tmp_path / "a.safetensors")


@pytest.mark.parametrize("alpha", [10**400, "4", None, float("nan"), [4]])
def test_an_alpha_that_is_no_number_is_refused(tmp_path, alpha):
    save_file({"q.lora_A.weight": torch.ones(2, 3), "q.lora_B.weight": torch.ones(4, 2)}, tmp_path / "a.safetensors")
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": alpha}))
    with pytest.raises(CheckpointError, match="alpha|number"):
        read_lora(tmp_path / "a.safetensors")
