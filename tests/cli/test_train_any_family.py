"""`unclip train decoder` on a family unknown to the engine: latents, a conditioner and a writer of its own."""

import made_up_family
import pytest
import torch
from PIL import Image

from unclip.__main__ import main
from unclip.unclip_core.families.loading import load_model

pytest.importorskip("accelerate")


@pytest.fixture(autouse=True)
def known():
    with made_up_family.registered():
        yield


def test_a_decoder_of_latents_is_trained_from_the_command_line(tmp_path, capsys):
    base = made_up_family.write_folder(tmp_path / "base")
    (tmp_path / "data").mkdir()
    for level in (40, 120, 200):
        Image.new("RGB", (90, 70), (level, 90, 20)).save(tmp_path / "data" / f"{level}.png")
        (tmp_path / "data" / f"{level}.txt").write_text(f"a {level} thing")
    config = tmp_path / "decoder.json"
    config.write_text(
        f'{{"base": "{base.as_posix()}", "training": {{"steps": 3, "batch": 2, "lr": 0.01, "ema": 0.5, '
        '"precision": "no", "workers": 0, "sample_every": 3}}}}'.replace("}}}}", "}}")
    )
    out = tmp_path / "out"
    code = main(["train", "decoder", "--data", str(tmp_path / "data"), "--config", str(config), "--output", str(out)])
    assert code == 0, capsys.readouterr()
    before, after = (load_model(folder).decoder.net.state_dict() for folder in (base, out))
    assert before.keys() == after.keys() and any(not torch.equal(before[key], after[key]) for key in before)
    assert list((out / "training" / "decoder" / "samples").glob("*.png"))
