"""LoRA: peft is the reference for what trained adapters do; files are refused with a sentence that says why."""

import copy
import json

import pytest
import torch
from safetensors.torch import save_file

from unclip.unclip_core.diffusion.spec import DiffusionSpec
from unclip.unclip_core.lora.delta import apply_lora, changed_bytes, filled, shared_copy, with_loras
from unclip.unclip_core.lora.files import read_lora, write_lora
from unclip.unclip_core.models import Decoder, Prior
from unclip.unclip_core.nets.decoder import DecoderNet, DecoderParams
from unclip.unclip_core.nets.map_conditioner import MapConditionerParams
from unclip.unclip_core.nets.prior import PriorParams, PriorTransformer
from unclip.unclip_core.nets.token_conditioner import TokenConditionerParams
from unclip.unclip_core.nets.unet_params import UNetParams
from unclip.unclip_core.train import lora as training
from unclip.unclip_core.weights.files import CheckpointError

FAMILY = "test"


def a_prior():
    return randomised(PriorTransformer(PriorParams(
        width=16, layers=2, heads=2, head_dim=8, embed_dim=8, text_width=8, text_tokens=5)))  # fmt: skip


def a_decoder(attention):
    """Karlo's way with attention and tokens, or the bundled model's with convolutions and maps."""
    unet = {"in_channels": 3, "out_channels": 3, "channels": (8, 16), "blocks": (1, 1), "time_channels": 8,
            "time_embed_dim": 16, "mid_blocks": 1, "groups": 4}  # fmt: skip
    if attention:
        shape = UNetParams(**unet, attention=(False, True), map_channels=(0, 0), context_dim=12, head_dim=8)
        heard = TokenConditionerParams(embed_dim=8, text_width=8, time_embed_dim=16, context_dim=12)
        return randomised(DecoderNet(DecoderParams(heard, shape, image_size=8)))
    shape = UNetParams(**unet, attention=(False, False), map_channels=(4, 4), layout="light")
    heard = MapConditionerParams(
        embed_dim=8, hidden=16, time_embed_dim=16, map_channels=(4, 4), map_sizes=(8, 4), factors=(0, 2)
    )
    return randomised(DecoderNet(DecoderParams(heard, shape, image_size=8)))


def randomised(net, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return net.eval().requires_grad_(False)


MAKERS = {"prior": a_prior, "convolutions": lambda: a_decoder(False), "attention": lambda: a_decoder(True)}
each_net = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


def part_of(net, family=FAMILY):
    if isinstance(net, PriorTransformer):
        return Prior(family, net, DiffusionSpec(), unit_norm=True)
    return Decoder(family, net, DiffusionSpec(), 8)


def run(net):
    """What the net says to fixed inputs."""
    generator = torch.Generator().manual_seed(7)

    def rand(*shape):
        return torch.randn(*shape, generator=generator)

    embeds, states, mask, times = rand(2, 8), rand(2, 5, 8), torch.ones(2, 5, dtype=torch.bool), torch.tensor([3, 90])
    if isinstance(net, PriorTransformer):
        return net(rand(2, 8), times, embeds, states, mask)
    return net(rand(2, 3, 8, 8), times, net.condition(rand(2, 8), embeds, states, mask))


def trained(net, seed=1, **how):
    """A copy of the net with adapters that do something, as after a training."""
    wrapped = copy.deepcopy(net)
    training.add_lora(wrapped, **{"rank": 3, "alpha": 5.0, **how})
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in training.lora_parameters(wrapped).values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return wrapped.eval()


@pytest.fixture
def saved(tmp_path):
    """Saves the adapters of a wrapped net and reads them."""

    def save(wrapped, name="lora", family=FAMILY):
        training.save_lora(tmp_path / f"{name}.safetensors", wrapped, family)
        return read_lora(tmp_path / f"{name}.safetensors")

    return save


def weights_of(net):
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def unwrapped(wrapped):
    """peft's own merge: the state dict of the plain net."""
    merged = copy.deepcopy(wrapped)
    for module in list(merged.modules()):
        for name, child in list(module.named_children()):
            if hasattr(child, "merge"):
                child.merge()
                setattr(module, name, child.get_base_layer())
    return merged.state_dict()


# ---- against peft ----


@each_net
def test_adapters_begin_as_nothing(make):
    plain, wrapped = make(), make()
    names = training.add_lora(wrapped, rank=3)
    assert names and torch.equal(run(wrapped), run(plain))
    assert set(training.lora_parameters(wrapped)) == {
        f"{name}.lora_{letter}.default.weight" for name in names for letter in "AB"
    }


@each_net
def test_strength_one_is_what_peft_merges_and_runs(make, saved):
    net = make()
    wrapped = trained(net)
    applied = apply_lora(part_of(net), saved(wrapped), 1.0).net
    merged = unwrapped(wrapped)
    assert set(applied.state_dict()) == set(merged)
    for name, weight in applied.state_dict().items():
        torch.testing.assert_close(weight, merged[name], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(run(applied), run(wrapped), rtol=1e-4, atol=1e-4)
    assert (run(applied) - run(net)).abs().max() > 0.01


def test_peft_reads_the_file(tmp_path):
    """The keys are peft's: its own model takes them, none missing and none left over."""
    import peft

    net = a_prior()
    wrapped = trained(net)
    training.save_lora(tmp_path / "lora.safetensors", wrapped, FAMILY)
    from safetensors.torch import load_file

    config = peft.LoraConfig(r=3, lora_alpha=5, target_modules=training.target_modules(net))
    theirs = peft.get_peft_model(copy.deepcopy(net), config)
    told = peft.set_peft_model_state_dict(theirs, load_file(tmp_path / "lora.safetensors"))
    assert not told.unexpected_keys and not [key for key in told.missing_keys if "lora" in key]
    torch.testing.assert_close(run(theirs.base_model.model), run(wrapped))


@pytest.mark.parametrize("rslora", [False, True])
def test_a_folder_of_pefts_own_is_read(tmp_path, rslora):
    import peft

    net = a_decoder(True)
    layers = r"unet\.(stem|up\.\d\.blocks\.\d\.skip|.*\.(to_q|context_v))"
    config = peft.LoraConfig(r=4, lora_alpha=6, use_rslora=rslora, target_modules=layers)
    theirs = peft.get_peft_model(copy.deepcopy(net), config)
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(len(name)))
    theirs.save_pretrained(tmp_path)
    applied = apply_lora(part_of(net), read_lora(tmp_path / "adapter_model.safetensors"), 1.0)
    merged = theirs.merge_and_unload().state_dict()
    for name, weight in applied.net.state_dict().items():
        torch.testing.assert_close(weight, merged[name], rtol=1e-5, atol=1e-5)


# ---- arithmetic ----


@each_net
def test_strength_nought_is_the_net_itself(make, saved):
    part = part_of(make())
    assert apply_lora(part, saved(trained(part.net)), 0.0) is part
    assert with_loras(part.net, []) is part.net


@each_net
def test_the_original_stays_and_unchanged_tensors_are_shared(make, saved):
    net = make()
    before = weights_of(net)
    lora = saved(trained(net))
    twin = with_loras(net, [(lora, 0.7)])
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    changed = {f"{name}.weight" for name in lora.factors}
    own, lent = dict(twin.named_parameters()), dict(net.named_parameters())
    assert {name for name in own if own[name] is not lent[name]} == changed
    assert all(buffer is dict(net.named_buffers())[name] for name, buffer in twin.named_buffers())
    assert changed_bytes(net, [(lora, 0.7)]) == sum(4 * lent[name].numel() for name in changed)
    assert changed_bytes(net, [(lora, 0.0)]) == 0


def test_strengths_and_several_loras_add(saved):
    """In float64 and written out with einsum."""
    net = a_decoder(False).double()
    first, second = saved(trained(net), "one"), saved(trained(net, seed=2, rank=2, targets=["blocks"]), "two")
    twin = with_loras(net, [(first, -1.5), (second, 0.25)])
    expected = weights_of(net)
    for lora, strength, scale in ((first, -1.5, 5 / 3), (second, 0.25, 5 / 2)):
        for name, (a, b) in lora.factors.items():
            a, b = a.double(), b.double().flatten(1)
            expected[f"{name}.weight"] += strength * scale * torch.einsum("or,r...->o...", b, a)
    for name, weight in twin.state_dict().items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-12, atol=1e-12)
    chained = apply_lora(apply_lora(part_of(net), first, -1.5), second, 0.25).net
    torch.testing.assert_close(run(chained.float()), run(twin.float()), rtol=1e-4, atol=1e-4)


def test_half_precision_is_rounded_once(saved):
    net = a_prior()
    lora = saved(trained(net))
    half = copy.deepcopy(net).to(torch.bfloat16)
    exact = with_loras(copy.deepcopy(half).float(), [(lora, 1.0), (lora, -0.5)])
    rounded = with_loras(half, [(lora, 1.0), (lora, -0.5)])
    for name, weight in rounded.state_dict().items():
        assert torch.equal(weight, exact.state_dict()[name].to(torch.bfloat16)), name


def test_weights_are_lent_for_the_length_of_a_block(saved):
    net = a_prior()
    lora = saved(trained(net))
    twin, plain = shared_copy(net), run(net)
    with filled(twin, net, [(lora, 1.0)]):
        assert torch.equal(run(twin), run(with_loras(net, [(lora, 1.0)]))) and torch.equal(run(net), plain)
        net.to(torch.float64)  # as a device would: the twin follows at the next block
    net.to(torch.float32)
    assert all(own is lent for own, lent in zip(twin.parameters(), net.parameters(), strict=True))
    with pytest.raises(RuntimeError, match="stop"), filled(twin, net, [(lora, 1.0)]):
        raise RuntimeError("stop")
    assert torch.equal(run(twin), plain)


def test_a_strength_must_be_a_number(saved):
    net = a_prior()
    with pytest.raises(ValueError, match="strength of .*lora.safetensors.* is nan"):
        with_loras(net, [(saved(trained(net)), float("nan"))])


# ---- training ----


def test_the_targets_of_each_net():
    assert training.default_targets(a_prior()) == ("attention", "mlp")
    assert training.default_targets(a_decoder(True)) == ("conditioner", "attention")
    assert training.default_targets(a_decoder(False)) == ("conditioner", "blocks")
    block = {f"blocks.0.{name}" for name in ("to_q", "to_k", "to_v", "to_out", "mlp_in", "mlp_out")}
    assert {name for name in training.target_modules(a_prior()) if name.startswith("blocks.0.")} == block
    assert not {"mlp_in", "mlp_out"} & {n.split(".")[-1] for n in training.target_modules(a_prior(), ["attention"])}
    attended = {name.split(".")[-1] for name in training.target_modules(a_decoder(True), ["attention"])}
    assert attended == {"to_q", "to_k", "to_v", "to_out", "context_k", "context_v"}
    blocks = {name.split(".")[-1] for name in training.target_modules(a_decoder(False), ["blocks"])}
    assert blocks == {"conv1", "conv2", "time_proj", "skip"}
    maps = [name for name in training.target_modules(a_decoder(False), ["conditioner"]) if ".maps." in name]
    assert maps == ["conditioner.maps.1.linear"], "a FreeMap lays its output out and cannot be wrapped"


def test_training_learns_and_goes_on_from_its_file(tmp_path):
    """A few steps, saved and read back: the same outputs, and the same next step as without a break."""
    net = a_prior()
    wanted = run(net) + 1

    def steps(wrapped, count, kind=torch.optim.SGD):
        optimizer = kind(list(training.lora_parameters(wrapped).values()), lr=0.02)
        for _ in range(count):
            optimizer.zero_grad()
            loss = (run(wrapped) - wanted).square().mean()
            loss.backward()
            optimizer.step()
        return float(loss.detach())

    wrapped = copy.deepcopy(net)
    torch.manual_seed(0)
    training.add_lora(wrapped, rank=2, alpha=3.0)
    first = steps(wrapped, 1)
    assert steps(wrapped, 60, torch.optim.Adam) < 0.9 * first
    training.save_lora(tmp_path / "lora.safetensors", wrapped, FAMILY)
    resumed = copy.deepcopy(net)
    names = training.load_lora(tmp_path / "lora.safetensors", resumed, FAMILY)
    assert names == training.target_modules(net)
    assert torch.equal(run(resumed), run(wrapped))
    assert steps(resumed, 2) == steps(wrapped, 2)


def test_other_values_such_as_averages_can_be_saved(tmp_path):
    net = a_prior()
    wrapped = trained(net)
    halves = {name: parameter.detach() / 2 for name, parameter in training.lora_parameters(wrapped).items()}
    training.save_lora(tmp_path / "half.safetensors", wrapped, FAMILY, halves)
    lora = read_lora(tmp_path / "half.safetensors")
    for name, pair in lora.factors.items():
        for letter, factor in zip("AB", pair, strict=True):
            assert torch.equal(factor, halves[f"{name}.lora_{letter}.default.weight"])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda net: training.add_lora(net, rank=0), "rank must be a whole number above 0, not 0"),
        (lambda net: training.add_lora(net, alpha=-1.0), "alpha must be a number above 0, not -1.0"),
        (lambda net: training.add_lora(net, targets=["blocks"]), r"\['blocks'\]; those of a prior are"),
        (lambda net: training.add_lora(net, targets=[]), "no layers in the LoRA targets"),
        (lambda net: (training.add_lora(net), training.add_lora(net)), "has LoRA adapters already"),
        (lambda net: training.save_lora("x.safetensors", net, FAMILY), "has no LoRA adapters"),
        (lambda net: training.add_lora(net.blocks[0]), "PriorBlock takes no LoRA"),
    ],
)
def test_training_refuses(call, said):
    with pytest.raises(ValueError, match=said):
        call(a_prior())


# ---- files that are refused ----


def pairs(net, rank=2):
    """Factors that fit the net's attention."""
    weights = {name: net.get_submodule(name).weight for name in training.target_modules(net, ["attention"])}
    return {name: (torch.ones(rank, w.shape[1]), torch.ones(w.shape[0], rank)) for name, w in weights.items()}


def a_file(path, factors, **header):
    write_lora(path, factors, **{"family": FAMILY, "stage": "prior", "rank": 2, "alpha": 2.0, **header})
    return path


def test_a_lora_of_another_family_stage_or_shape_is_refused(tmp_path):
    net = a_prior()
    path = tmp_path / "mine.safetensors"
    fits = read_lora(a_file(path, pairs(net)))
    with pytest.raises(CheckpointError, match=r"mine.safetensors' was trained for the model family 'test'.*'other'"):
        apply_lora(part_of(net, "other"), fits, 1.0)
    with pytest.raises(CheckpointError, match=r"mine.safetensors' is a LoRA for the prior, not for the decoder"):
        apply_lora(part_of(a_decoder(True)), fits, 1.0)
    wide = {"blocks.1.to_q": (torch.ones(2, 20), torch.ones(16, 2))}
    with pytest.raises(CheckpointError, match=r"'blocks.1.to_q': A \[2, 20\] and B \[16, 2\].*\[16, 20\].*\[16, 16\]"):
        apply_lora(part_of(net), read_lora(a_file(path, wide)), 1.0)
    deep = {"blocks.9.to_q": (torch.ones(2, 16), torch.ones(16, 2))}
    with pytest.raises(CheckpointError, match=r"mine.safetensors' does not fit.*: 'blocks.9.to_q' is no layer"):
        apply_lora(part_of(net), read_lora(a_file(path, deep)), 1.0)


def test_broken_files_are_refused(tmp_path):
    path = tmp_path / "bad.safetensors"
    key, a, b = "base_model.model.blocks.0.to_q.lora_{}.weight", torch.ones(2, 16), torch.ones(16, 2)
    save_file({key.format("A"): a}, path)
    with pytest.raises(CheckpointError, match=r"bad.safetensors' lacks the 'blocks.0.to_q.lora_B.weight'"):
        read_lora(path)
    save_file({"lora_unet_down_blocks_0.lora_down.weight": a}, path)
    with pytest.raises(CheckpointError, match=r"key 'lora_unet_down_blocks_0.lora_down.weight' is not of the form"):
        read_lora(path)
    save_file({key.format("A"): a, key.format("B"): b[:, :1].contiguous()}, path)
    with pytest.raises(CheckpointError, match=r"\[2, 16\] and .* \[16, 1\] do not go together"):
        read_lora(path)
    save_file({key.format("A"): a * torch.nan, key.format("B"): b}, path)
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        read_lora(path)
    save_file({key.format("A"): a, key.format("B"): b}, path)
    with pytest.raises(CheckpointError, match=r"does not say its alpha.*adapter_config.json"):
        read_lora(path)
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 2, "use_dora": True}))
    with pytest.raises(CheckpointError, match=r"\{'use_dora': True\}, which is more than a plain LoRA"):
        read_lora(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CheckpointError, match="damaged or truncated"):
        read_lora(path)
    with pytest.raises(CheckpointError, match=r"there is no file .*none.safetensors"):
        read_lora(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="no .safetensors or .bin file"):
        read_lora(tmp_path / "bad.ckpt")


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ({"stage": "upsampler"}, "stage 'upsampler'"),
        ({"rank": 3}, r"header says rank 3, but A of 'blocks.0.to_k' is \[2, 16\]"),
        ({"alpha": None}, "alpha: Input should be a valid number"),
    ],
)
def test_headers_that_do_not_hold_are_refused(tmp_path, header, said):
    with pytest.raises(CheckpointError, match=said):
        read_lora(a_file(tmp_path / "lora.safetensors", pairs(a_prior()), **header))


def test_a_file_that_lost_a_layer_is_refused(tmp_path):
    """The header names all layers; a file that was cut down by hand holds fewer."""
    from safetensors import safe_open

    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    a_file(whole, pairs(a_prior()))
    with safe_open(whole, framework="pt") as file:
        kept = {key: file.get_tensor(key) for key in file.keys() if "blocks.1.to_v" not in key}  # noqa: SIM118
        save_file(kept, cut, metadata=file.metadata())
    with pytest.raises(CheckpointError, match=r"other layers than the file holds \(such as \['blocks.1.to_v'\]\)"):
        read_lora(cut)
