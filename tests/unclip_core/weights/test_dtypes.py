"""Eight-bit weights are read by every reader, to the same numbers; what are no weights is refused by its name."""

import shutil

import pytest
import torch
from factories import write_model
from safetensors.torch import load_file, save_file

from unclip.unclip_core.families.karlo.random_weights import small_size, write_random_karlo
from unclip.unclip_core.families.loading import load_model
from unclip.unclip_core.lora.files import read_lora
from unclip.unclip_core.weights.files import CheckpointError, load_weights, save_weights
from unclip.unclip_core.weights.tensors import open_file

FP8 = [torch.float8_e4m3fn, torch.float8_e5m2]
MATRIX = torch.tensor([[1.0, -0.5, 448.0], [0.0, 2.0**-6, 3.5]])


def in_safetensors(folder, tensor):
    save_file({"w": tensor}, folder / "w.safetensors")
    return folder / "w.safetensors"


def in_pickle(folder, tensor):
    torch.save({"w": tensor}, folder / "w.bin")
    return folder / "w.bin"


@pytest.mark.parametrize("dtype", FP8)
@pytest.mark.parametrize("write", [in_safetensors, in_pickle])
def test_eight_bits_are_read(tmp_path, write, dtype):
    tensor = MATRIX.to(dtype)
    assert torch.equal(open_file(write(tmp_path, tensor)).read("w").float(), tensor.float())
    broken = tensor.clone()
    broken.view(torch.uint8)[0, 0] = 0x7F  # NaN in either format
    with pytest.raises(CheckpointError, match="NaN"):
        open_file(write(tmp_path, broken)).read("w")


@pytest.mark.parametrize("dtype", FP8)
def test_eight_bits_with_a_header_are_read(tmp_path, dtype):
    save_weights(tmp_path / "w.safetensors", {"w": MATRIX.to(dtype)}, {})
    for wanted in (None, torch.float32, torch.bfloat16):
        tensors, _ = load_weights(tmp_path / "w.safetensors", wanted)
        assert tensors["w"].dtype == (wanted or torch.float32)
        assert torch.equal(tensors["w"], MATRIX.to(dtype).to(wanted or torch.float32))


def to_fp8(path):
    """The file's matrices in eight bits, as quantised files have them; returns the numbers that they now are."""
    tensors = {k: v.to(FP8[0]) if v.ndim == 2 and len(v) > 1 else v for k, v in load_file(path).items()}
    return tensors, {key: value.float() for key, value in tensors.items()}


def test_a_karlo_folder_of_eight_bits_is_that_of_its_numbers(tmp_path):
    plain = write_random_karlo(tmp_path / "plain", small_size())
    fp8 = shutil.copytree(plain, tmp_path / "fp8")
    for folder, number in ((fp8, 0), (plain, 1)):
        path = folder / "prior" / "diffusion_pytorch_model.safetensors"
        save_file(to_fp8(plain / path.relative_to(folder))[number], path)
    ours, theirs = (load_model(folder).prior.net.state_dict() for folder in (fp8, plain))
    assert all(torch.equal(ours[key], theirs[key]) and ours[key].dtype == torch.float32 for key in theirs)


def test_a_native_folder_of_eight_bits_is_that_of_its_numbers(tmp_path):
    write_model(tmp_path)
    path = tmp_path / "prior.safetensors"
    _, config = load_weights(path)
    eight, numbers = to_fp8(path)
    save_weights(path, eight, config)
    found = load_model(tmp_path).prior.net.state_dict()
    assert all(torch.equal(found[key], numbers[key]) and found[key].dtype == torch.float32 for key in numbers)


def test_a_lora_of_eight_bits_is_that_of_its_numbers(tmp_path):
    pair = {"q.lora_A.weight": MATRIX.to(FP8[0]), "q.lora_B.weight": torch.ones(4, 2, dtype=FP8[1])}
    save_file(pair, tmp_path / "a.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 2}')
    delta = read_lora(tmp_path / "a.safetensors").delta("q", torch.device("cpu"), torch.float32)
    assert torch.equal(delta, torch.ones(4, 2) @ MATRIX.to(FP8[0]).float())


ODD = [torch.int8, torch.uint8, torch.int32, torch.bool, torch.complex64]


@pytest.mark.parametrize("dtype", ODD)
def test_other_numbers_are_refused_by_name(tmp_path, dtype):
    name = str(dtype).removeprefix("torch.")
    path = in_pickle(tmp_path, torch.ones(2, 3).to(dtype))
    with pytest.raises(CheckpointError, match=f"w.bin' holds 'w' as {name}"):
        open_file(path).read("w")
    path = in_safetensors(tmp_path, torch.ones(2, 3).to(dtype))
    with pytest.raises(CheckpointError, match=r"w.safetensors' holds 'w' as \w+: weights are dense"):
        open_file(path).read("w")
    save_file({"w": torch.ones(2, 3).to(dtype)}, path, {"config": "{}"})
    with pytest.raises(CheckpointError, match=f"w.safetensors' holds 'w' as {name}"):
        load_weights(path)


def quantised():
    return torch.quantize_per_tensor(torch.ones(2, 3), 0.1, 0, torch.qint8)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: torch.eye(3).to_sparse(), "sparse"),
        (quantised, "quantised"),
        (lambda: torch.ones(1).expand(10**6, 10**6), "larger"),
    ],
)
def test_what_is_no_row_of_numbers_is_refused_by_name(tmp_path, make, said):
    path = in_pickle(tmp_path, make())
    with pytest.raises(CheckpointError, match=f"w.bin.* as {said}"):
        open_file(path).read("w")


def test_integers_where_weights_belong_are_refused_before_they_are_read(tmp_path):
    folder = write_random_karlo(tmp_path / "karlo", small_size())
    path = folder / "prior" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    save_file(tensors | {"proj_in.weight": tensors["proj_in.weight"].to(torch.int8)}, path)
    with pytest.raises(CheckpointError, match="'proj_in.weight' is I8"):
        load_model(folder).reader.check()
    write_model(tmp_path)
    held, config = load_weights(tmp_path / "prior.safetensors")
    save_weights(tmp_path / "prior.safetensors", held | {"query": held["query"].to(torch.int64)}, config)
    with pytest.raises(CheckpointError, match="'query' is int64, the model needs float32"):
        _ = load_model(tmp_path).prior
