"""TorchScript archives and zipped pickles: the numbers of torch's own reader, and nothing that they hold is run."""

import pickle
import struct
import zipfile

import pytest
import torch
from torch import Tensor, nn

from unclip.unclip_core.weights.files import CheckpointError
from unclip.unclip_core.weights.tensors import PICKLES, load_pickle
from unclip.unclip_core.weights.torch_archive import (
    check_archive,
    check_legacy,
    is_archive,
    is_torchscript,
    open_torchscript,
)


def test_a_link_to_nothing_and_a_folder_are_said_to_be_missing(tmp_path):
    for suffix in PICKLES:
        (tmp_path / f"dead{suffix}").symlink_to("gone")
        (tmp_path / f"folder{suffix}").mkdir()
        for name in ("dead", "folder"):
            with pytest.raises(CheckpointError, match=f"Weights are missing: there is no file .*{name}{suffix}"):
                load_pickle(tmp_path / f"{name}{suffix}")
    with pytest.raises(CheckpointError, match="dead.bin' cannot be read"):
        check_legacy(tmp_path / "dead.bin")


class Inner(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.register_buffer("low", torch.randn(2, 3).half())
        self.register_buffer("whole", torch.arange(5))
        self.register_buffer("yes", torch.tensor([True, False]))
        self.aside = torch.ones(2)  # neither a parameter nor a buffer

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.aside.sum()


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = Inner(), Inner()
        self.scale = nn.Parameter(torch.tensor(2.5))
        self.turned = nn.Parameter(torch.randn(4, 6).t())
        self.names = ["a", "b"]
        self.count = 3

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x)[:, :3]) * self.scale


class Writer(nn.Module):
    """Writes a file as soon as it is unpickled by torch.jit.load."""

    def __init__(self, path: str):
        super().__init__()
        self.path = path
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return x

    @torch.jit.export
    def __getstate__(self) -> tuple[str, Tensor, bool]:
        return self.path, self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, Tensor, bool]) -> None:
        self.path, self.training = state[0], state[2]
        self.weight = state[1]
        torch.save(state[1], self.path)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("archive") / "m.pt"
    torch.jit.script(Outer()).save(str(path))
    return path


def test_the_numbers_are_those_of_torchs_own_reader(archive):
    with _quiet():
        expected = torch.jit.load(str(archive)).state_dict()
    found = open_torchscript(archive)
    assert is_torchscript(archive) and found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].dtype == value.dtype and torch.equal(found[key], value), key


def _quiet():
    import warnings

    return warnings.catch_warnings(record=True)


def test_nothing_is_run(tmp_path):
    trap, path = tmp_path / "written", tmp_path / "trap.pt"
    torch.jit.script(Writer(str(trap))).save(str(path))
    try:
        open_torchscript(path)
    except CheckpointError:
        pass
    assert not trap.exists()
    with _quiet():
        torch.jit.load(str(path))
    assert trap.exists()  # so the trap works


def repacked(archive, path, change, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(archive) as old, zipfile.ZipFile(path, "w", compression) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, change(entry.filename, old.read(entry.filename)))
    return path


@pytest.mark.parametrize("target", ["os system", "builtins eval", "torch load", "torch._utils _rebuild_sparse_tensor"])
def test_other_classes_and_functions_are_refused_by_name(archive, tmp_path, target):
    module, name = target.split()
    data = b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"X\x01\x00\x00\x00x\x85R."
    path = repacked(archive, tmp_path / "evil.pt", lambda file, old: data if file.endswith("/data.pkl") else old)
    with pytest.raises(CheckpointError, match=rf"{module}\.{name}"):
        open_torchscript(path)


def test_packed_entries_are_refused_before_they_are_unpacked(archive, tmp_path):
    path = repacked(archive, tmp_path / "packed.pt", lambda file, old: old, zipfile.ZIP_DEFLATED)
    assert is_torchscript(path)
    with pytest.raises(CheckpointError, match="packed"):
        open_torchscript(path)
    torch.save({"w": torch.zeros(1 << 20)}, tmp_path / "plain.bin")
    bomb = repacked(tmp_path / "plain.bin", tmp_path / "bomb.bin", lambda file, old: old, zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 1 << 16
    with pytest.raises(CheckpointError, match="packed"):
        load_pickle(bomb)
    check_archive(tmp_path / "plain.bin")
    assert load_pickle(tmp_path / "plain.bin")["w"].numel() == 1 << 20


def test_a_truncated_archive_and_odd_pickles_are_refused(archive, tmp_path):
    data = archive.read_bytes()
    (tmp_path / "cut.pt").write_bytes(data[: len(data) // 2])
    assert not is_torchscript(tmp_path / "cut.pt")
    for odd in (b"", b"\x80\x02.", b"\x80\x02N.", pickle.dumps([1, 2]), data[:100]):
        path = repacked(archive, tmp_path / "odd.pt", lambda file, old, odd=odd: odd if "data.pkl" in file else old)
        with pytest.raises(CheckpointError, match="odd.pt"):
            open_torchscript(path)


def test_a_tensor_beyond_its_storage_is_refused(archive, tmp_path):
    def shorter(file, old):
        return old[: len(old) // 2] if "/data/" in file else old

    with pytest.raises(CheckpointError, match="short.pt"):
        open_torchscript(repacked(archive, tmp_path / "short.pt", shorter))


def test_random_damage_never_ends_in_another_error(archive, tmp_path):
    data = bytearray(archive.read_bytes())
    generator = torch.Generator().manual_seed(0)
    for number in range(150):
        broken = bytearray(data)
        for place in torch.randint(len(data), (8,), generator=generator).tolist():
            broken[place] ^= 1 + number % 255
        path = tmp_path / "b.pt"
        path.write_bytes(broken)
        try:
            if is_archive(path):
                open_torchscript(path)
        except CheckpointError as error:
            assert "b.pt" in str(error)


def test_an_archive_of_several_disks_is_refused_by_name(archive, tmp_path):
    """Python's `is_zipfile` raises of such an end."""
    data = archive.read_bytes()
    end = data.rindex(b"PK\x05\x06")
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 7)
    path = tmp_path / "disks.pt"
    path.write_bytes(data[:end] + locator + data[end:])
    for read in (is_torchscript, open_torchscript, load_pickle):
        with pytest.raises(CheckpointError, match="disks.pt"):
            read(path)
