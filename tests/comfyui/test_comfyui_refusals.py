"""Prompts that POST /prompt refuses, or that end in an error: which node and what is wrong is said."""

import json

import pytest
from comfy_server import ROOT

pytestmark = pytest.mark.comfyui


@pytest.fixture
def prompt():
    text = (ROOT / "workflows" / "api" / "text_to_image.json").read_text(encoding="utf-8")
    return json.loads(text.replace("(things)", "(shapes)"))


def node_of(prompt, class_type):
    return next(key for key, node in prompt.items() if node["class_type"] == class_type)


# node, input, value, type of ComfyUI's error, what the answer says
REFUSED = [
    ("UnclipLoadModel", "model", "dall-e", "value_not_in_list", "dall-e"),
    ("UnclipPriorSample", "sampler", "euler", "value_not_in_list", "euler"),
    ("UnclipDecoderSample", "sampler", "", "value_not_in_list", "sampler"),
    ("UnclipPriorSample", "steps", -1, "value_smaller_than_min", "steps"),
    ("UnclipDecoderSample", "steps", 1001, "value_bigger_than_max", "steps"),
    ("UnclipDecoderSample", "steps", "many", "invalid_input_type", "steps"),
    ("UnclipDecoderSample", "batch_size", 65, "value_bigger_than_max", "batch_size"),
    ("UnclipDecoderSample", "seed", -1, "value_smaller_than_min", "seed"),
    ("UnclipUpscale", "seed", 2**64, "value_bigger_than_max", "seed"),
    ("UnclipPriorSample", "candidates", 0, "custom_validation_failed", "'candidates' is 0"),
    ("UnclipPriorSample", "guidance_scale", float("nan"), "custom_validation_failed",
     "'guidance_scale' must be a number from 0 to 20, not nan."),
    ("UnclipDecoderSample", "guidance_scale", float("inf"), "custom_validation_failed",
     "'guidance_scale' must be a number from 0 to 20, not inf."),
    ("UnclipDecoderSample", "guidance_scale", 20.5, "custom_validation_failed",
     "'guidance_scale' is 20.5; it must lie between 0 and 20."),
    ("UnclipDecoderSample", "eta", float("nan"), "custom_validation_failed",
     "'eta' must be a number from 0 to 1, not nan."),
]  # fmt: skip


def refusal(class_type):
    """The answer's status: Rerank, which stands before Upscale, is an output of its own and runs nevertheless."""
    return 200 if class_type == "UnclipUpscale" else 400


@pytest.mark.parametrize(
    ("class_type", "name", "value", "kind", "said"), REFUSED, ids=[f"{case[1]}={case[2]}" for case in REFUSED]
)
def test_a_bad_value_is_refused_and_named(server, prompt, class_type, name, value, kind, said):
    node_id = node_of(prompt, class_type)
    prompt[node_id]["inputs"][name] = value
    status, answer = server.post("/prompt", {"prompt": prompt})
    assert status == refusal(class_type)
    assert status == 200 or answer["error"]["type"] == "prompt_outputs_failed_validation"
    assert set(answer["node_errors"]) == {node_id}
    assert answer["node_errors"][node_id]["class_type"] == class_type
    errors = answer["node_errors"][node_id]["errors"]
    assert name in [error["extra_info"]["input_name"] for error in errors]
    # What VALIDATE_INPUTS says, ComfyUI says of every input that it takes: the sentence itself names the one.
    assert all(error["type"] == kind and said in error["details"] for error in errors), errors


@pytest.mark.parametrize(
    ("class_type", "name"),
    [
        ("UnclipTextEncode", "text"),
        ("UnclipPriorSample", "prior"),
        ("UnclipDecoderSample", "embedding"),
        ("UnclipDecoderSample", "steps"),
        ("UnclipUpscale", "image"),
    ],
)
def test_a_missing_input_is_refused_and_named(server, prompt, class_type, name):
    node_id = node_of(prompt, class_type)
    del prompt[node_id]["inputs"][name]
    status, answer = server.post("/prompt", {"prompt": prompt})
    assert status == refusal(class_type)
    errors = answer["node_errors"][node_id]["errors"]
    assert [(error["type"], error["extra_info"]["input_name"]) for error in errors] == [
        ("required_input_missing", name)
    ]


def test_sockets_do_not_mix(server, prompt):
    decoder, text = node_of(prompt, "UnclipDecoderSample"), node_of(prompt, "UnclipTextEncode")
    prompt[decoder]["inputs"]["embedding"] = [text, 0]
    status, answer = server.post("/prompt", {"prompt": prompt})
    assert status == 400
    (error,) = answer["node_errors"][decoder]["errors"]
    assert error["type"] == "return_type_mismatch"
    assert "UNCLIP_TEXT" in error["details"] and "UNCLIP_EMBEDDING" in error["details"]


def test_more_kept_than_drawn_is_refused_before_the_run(server, prompt):
    node_id = node_of(prompt, "UnclipPriorSample")
    prompt[node_id]["inputs"] |= {"candidates": 2, "keep": 3}
    status, answer = server.post("/prompt", {"prompt": prompt})
    assert status == 400
    assert set(answer["node_errors"]) == {node_id}
    for error in answer["node_errors"][node_id]["errors"]:
        assert error["type"] == "custom_validation_failed"
        assert "'keep' is 3, but there are only 2 'candidates'" in error["details"]


def test_a_damaged_model_ends_in_our_sentence(server, prompt):
    folder = server.base / "models" / "unclip" / "damaged"
    folder.mkdir(parents=True)
    index = {"format": "unclip-v1", "family": "tiny", "components": {"clip": "clip.safetensors"}}
    (folder / "model_index.json").write_text(json.dumps(index))
    (folder / "clip.safetensors").write_bytes(b"not weights")
    prompt[node_of(prompt, "UnclipLoadModel")]["inputs"]["model"] = "damaged"
    run = server.run(prompt)
    assert run.ending == "execution_error" and run.details["node_type"] == "UnclipLoadModel"
    assert "clip.safetensors" in run.details["exception_message"]
    assert "damaged or truncated" in run.details["exception_message"]
