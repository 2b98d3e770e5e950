"""The whole way of a LoRA: trained on a Karlo with own images, laid among the LoRAs, and drawn with in a run."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unclip.cli.headless import run_workflow
from unclip.nodes import host
from unclip.unclip_core.families.karlo.random_weights import small_size, write_random_karlo

pytest.importorskip("accelerate")
pytest.importorskip("peft")

WORKFLOW = Path(__file__).parents[2] / "workflows" / "api" / "karlo_text_to_image.json"
FEW = {"3.steps": 2, "4.steps": 2, "5.steps": 2}


@pytest.fixture(scope="module")
def karlo_models(tmp_path_factory):
    """A models folder with a small random Karlo under its published name."""
    root = tmp_path_factory.mktemp("karlo")
    write_random_karlo(root / "karlo-v1-alpha", small_size())
    return root


@pytest.fixture
def folders(karlo_models, tmp_path, monkeypatch):
    """The images and where a LoRA belongs."""
    for name, level in (("dark", 40), ("bright", 200)):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.new("RGB", (24, 20), (level, 80, 120)).save(tmp_path / "images" / f"{name}.png")
        (tmp_path / "images" / f"{name}.txt").write_text(f"a {name} one")
    monkeypatch.setenv(host.FOLDER_VARIABLE, str(karlo_models))
    monkeypatch.setenv(host.LORA_VARIABLE, str(tmp_path / "loras"))
    return tmp_path


def drawn(folder, name, **inputs):
    """The image of the workflow with Apply LoRA between the loader and the stages."""
    prompt = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    prompt["7"] = {
        "class_type": "UnclipApplyLora",
        "inputs": {
            "lora_name": "mine.safetensors",
            "strength_prior": 1.0,
            "strength_decoder": 1.0,
            "prior": ["1", 1],
            "decoder": ["1", 2],
        }
        | inputs,
    }
    prompt["3"]["inputs"]["prior"], prompt["4"]["inputs"]["decoder"] = ["7", 0], ["7", 1]
    report = run_workflow(prompt, FEW, folder / name)
    assert report.status == "ok", report
    return np.asarray(Image.open(report.outputs[0].path)).astype(float)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["prior", "decoder"])
def test_a_lora_trained_on_karlo_changes_what_a_run_draws(folders, karlo_models, stage):
    from unclip.unclip_core.train.run import train

    config = folders / "lora.json"
    config.write_text(
        json.dumps(
            {
                "base": str(karlo_models / "karlo-v1-alpha"),
                "lora": {"rank": 2},
                "training": {"steps": 2, "batch": 2, "lr": 0.05, "warmup": 0},
            }
        )
    )
    assert train(stage, str(folders / "images"), str(config), str(folders / "out")) == 0
    (folders / "loras").mkdir()
    (folders / "out" / f"{stage}-lora.safetensors").rename(folders / "loras" / "mine.safetensors")
    plain = drawn(folders, "plain", lora_name="(none)")
    assert abs(drawn(folders, "with") - plain).mean() > 1
    assert (drawn(folders, "off", **{f"strength_{stage}": 0.0}) == plain).all()
