"""What a training takes over from its base: the model that the index names, and nothing that lies beside it."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from unclip.unclip_core.families.trained_folder import refuse_same_folder, trained_entry, write_copy

INDEX = {"_class_name": "Any", "prior": ["diffusers", "PriorTransformer"], "tokenizer": ["transformers", "T"]}
WEIGHTS = "diffusion_pytorch_model.safetensors"
MODEL = [
    "LICENSE",
    "README.md",
    "model_index.json",
    f"prior/{WEIGHTS}",
    "prior/config.json",
    "tokenizer/sub/vocab.json",
]
BESIDE = [
    ".git/lfs/objects/ab/cd",
    ".gitattributes",
    ".writing.lock",
    ".unclip-download.json",
    "prior/.f00.part",
    f"prior/{WEIGHTS}.f00.part",
    "training/prior/state.pt",
    "training/prior/config.json",
    "copies.safetensors",
    "copies.ckpt",
    "mine/model_index.json",
    "mine/prior/config.json",
]


@pytest.fixture
def base(tmp_path):
    folder = tmp_path / "base"
    for name in [*MODEL, *BESIDE]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    (folder / "model_index.json").write_text(json.dumps(INDEX))
    save_file({"w": torch.zeros(2)}, folder / "prior" / WEIGHTS)
    return folder


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def write(base, output, number):
    checked = []
    entry = trained_entry("w", torch.full((2,), float(number)), torch.float32)
    write_copy(base, output, {"prior": [entry]}, checked.append)
    assert checked == [INDEX]


def test_the_model_is_taken_over_and_nothing_beside_it(base, tmp_path):
    output = tmp_path / "out"
    (output / "training" / "prior").mkdir(parents=True)
    (output / "training" / "prior" / "state.pt").write_bytes(b"its own")
    write(base, output, 1)
    assert files(output) == sorted([*MODEL, "training/prior/state.pt"])
    assert (output / "training" / "prior" / "state.pt").read_bytes() == b"its own"
    for name in ("LICENSE", "README.md", "prior/config.json", "tokenizer/sub/vocab.json"):
        assert (output / name).read_bytes() == name.encode()
    assert load_file(output / "prior" / WEIGHTS)["w"].tolist() == [1.0, 1.0]


def test_saved_again_and_again_it_does_not_grow_wherever_it_lies(base):
    for number in (1, 2, 3):
        write(base, base / "mine", number)
    assert files(base / "mine") == sorted(MODEL)
    assert load_file(base / "mine" / "prior" / WEIGHTS)["w"].tolist() == [3.0, 3.0]


@pytest.mark.parametrize(("place", "said"), [("", "is base and output"), ("mine", "lies in the folder of the base"),
                                             ("a/b", "lies in the folder of the base")])  # fmt: skip
def test_no_result_is_written_into_its_base(base, tmp_path, place, said):
    (tmp_path / "link").symlink_to(base, target_is_directory=True)
    for folder in (base, tmp_path / "link"):
        with pytest.raises(ValueError, match=said):
            refuse_same_folder(base, folder / place)
        with pytest.raises(ValueError, match=said):
            refuse_same_folder(folder, base / place)


def test_beside_its_base_it_may_lie_and_around_it(base, tmp_path):
    for output in (tmp_path, tmp_path / "base2", tmp_path / "training" / "base"):
        refuse_same_folder(base, output)
