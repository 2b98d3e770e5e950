"""`unclip embed --ray` and `unclip evaluate --ray`: what one process makes, made by two."""

import json
import operator
import sys
from functools import partial

import pytest
import torch
from PIL import Image
from safetensors import safe_open

pytest.importorskip("ray", reason="--ray needs the extra [ray], which is not installed")

from unclip.__main__ import main
from unclip.cli.mapping.engine import Pool, spread

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray")]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Ten images with captions, one of them damaged and one without a caption."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(10):
        color = (25 * number, 255 - 20 * number, (70 * number) % 256)
        Image.effect_noise((70, 64), 40 + number).convert("RGB").save(folder / f"{number}.png")
        image = Image.open(folder / f"{number}.png").convert("RGB")
        image.paste(color, (10, 10, 40, 40))
        image.save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"a {('red', 'blue', 'green')[number % 3]} square")
    (folder / "2.png").write_bytes(b"no image")
    (folder / "5.txt").unlink()
    return folder


def tensors(folder):
    found = {}
    for path in sorted(folder.rglob("*.safetensors")):
        with safe_open(path, "pt") as file:
            found |= {(path.name, key): file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            found[path.name, "notes"] = file.metadata()
    return found


def test_embeddings_are_those_of_one_process(images, tmp_path, capsys):
    arguments = ["embed", "--data", str(images), "--batch", "4"]
    assert main([*arguments, "--output", str(tmp_path / "one"), "--device", "cpu"]) == 0
    assert main([*arguments, "--output", str(tmp_path / "ray"), "--ray", "--ray-workers", "2"]) == 0
    one, two = tensors(tmp_path / "one"), tensors(tmp_path / "ray")
    assert one.keys() == two.keys() and len(one) > 4
    for key, value in one.items():
        if key[1] == "notes":
            assert two[key] == value
        else:
            assert torch.allclose(value.float(), two[key].float(), atol=1e-5), key
    said = capsys.readouterr().out
    assert said.count("9 embeddings stand in") == 2 and said.count("2.png") == 2
    assert main([*arguments, "--output", str(tmp_path / "ray"), "--ray"]) == 0, "what stands there is used"


def figures(capsys, *arguments):
    capsys.readouterr()
    assert main(["evaluate", "--model", "bundled (shapes)", *arguments, "--neighbours", "2", "--json"]) == 0
    said = capsys.readouterr().out
    return json.loads(said[said.index("{\n") :])  # the Ray of this file may tell of an earlier test's workers meanwhile


@pytest.mark.parametrize("source", ["text", "pictures"])
def test_figures_are_those_of_one_process(images, tmp_path, capsys, source):
    arguments = ["--data", str(images), "--n", "7", "--batch", "3", "--from", source, "--small", "--output"]
    one = figures(capsys, *arguments, str(tmp_path / "one"), "--device", "cpu")
    two = figures(capsys, *arguments, str(tmp_path / "ray"), "--ray", "--ray-workers", "1:2")
    assert one["pictures"] == two["pictures"] == 7
    assert one["left_out"] == two["left_out"] and "2.png" in one["left_out"]
    assert ("5.png" in one["left_out"]) == (source == "text")
    assert flat(two) == pytest.approx(flat(one), rel=2e-3, abs=2e-4)
    assert (one.pop("device"), one.pop("dtype")) == ("cpu", "fp32")  # workers have devices of their own
    same = [key for key in one if not isinstance(one[key], (float, dict))]
    assert {key: one[key] for key in same} == {key: two[key] for key in same}
    assert (tmp_path / "ray" / "evaluation.html").read_text().count("<img") == 14


def flat(found, before=""):
    """All floats of nested figures, by path."""
    numbers = {}
    for key, value in found.items():
        if isinstance(value, dict):
            numbers |= flat(value, f"{before}{key}.")
        elif isinstance(value, float):
            numbers[before + key] = value
    return numbers


def test_shares_come_back_with_their_place_and_faults_as_sentences():
    pool, make = Pool((1, 2)), partial(operator.methodcaller, "upper")
    assert dict(spread(pool, ["a", "b", "c"], make)) == {0: "A", 1: "B", 2: "C"}
    assert dict(spread(pool, [], make)) == {}
    with pytest.raises(ValueError, match="no attribute 'upper'"):
        dict(spread(pool, ["a", 7], make))


def test_more_gpus_than_there_are_is_said(capsys):
    from unclip.cli.mapping.engine import connected

    with connected(Pool((2, 2), gpus=64.0)):
        assert "2 workers need 128 GPUs, and Ray has" in capsys.readouterr().err


def test_without_ray_it_says_what_to_install(images, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["embed", "--data", str(images), "--output", str(tmp_path / "o"), "--ray"]) == 1
    assert 'pip install "ray[data]>=2.48"' in capsys.readouterr().err
