"""ComfyUI on the device, in each of its ways with memory: two models in turn, and a batch that does not fit."""

import pytest
from comfy_server import NoComfyUI, Server, find_comfyui
from not_tested import skip
from offline import apart, drawn, levels, read, with_inputs

pytestmark = [pytest.mark.gpu, pytest.mark.comfyui, pytest.mark.slow]

WAYS = {
    "as it comes": (),
    "lowvram": ("--lowvram",),
    "novram": ("--novram",),
    "highvram": ("--highvram",),
    "without dynamic vram": ("--disable-dynamic-vram",),
    "lowvram without dynamic vram": ("--lowvram", "--disable-dynamic-vram"),
    "fp16 unet": ("--fp16-unet",),
    "bf16 unet": ("--bf16-unet",),
}
REHEARSED = "without dynamic vram"
MODELS = ("things", "shapes")
TURNS = 6
GROWTH = 64  # MiB of the device's memory that torch may hold more after further turns

FULL = '''"""An accelerator whose memory more than LIMIT rows fill: the allocator is asked for what no card has."""

import functools

import torch
from torch.nn import functional

LIMIT = 8


def refusing(call):
    @functools.wraps(call)
    def asked(x, *values, **named):
        if x.ndim == 4 and len(x) > LIMIT:
            if x.device.type != "cuda":
                raise torch.OutOfMemoryError(f"{len(x)} rows do not fit")
            torch.empty(1 << 50, dtype=torch.uint8, device=x.device)
        return call(x, *values, **named)

    return asked


for name in ("conv2d", "group_norm", "silu"):
    setattr(functional, name, refusing(getattr(functional, name)))
NODE_CLASS_MAPPINGS = {}
'''


@pytest.fixture(scope="module")
def comfyui(device):
    """(folder, Python) of the ComfyUI to test in."""
    try:
        return find_comfyui()
    except NoComfyUI as reason:
        skip("ComfyUI on a GPU", reason)


@pytest.fixture
def served(comfyui, device, tmp_path):
    """Starts a server with these arguments, in a base folder that may hold another custom node."""
    servers = []

    def start(arguments, node=None):
        base = tmp_path / "base"
        (base / "input").mkdir(parents=True)
        where = ("--cpu",) if device.type == "cpu" else ("--cuda-device", str(device.index or 0))
        server = Server(*comfyui, base, (*where, *arguments))
        servers.append(server)
        if node is not None:  # the server lists its nodes seconds after it is started
            (base / "custom_nodes" / "full").mkdir()
            (base / "custom_nodes" / "full" / "__init__.py").write_text(node)
        server.wait_until_ready()
        return server

    yield start
    for server in servers:
        server.stop()


def prompt(model, device, **given):
    small = {"steps": 1, "candidates": 1, "keep": 1} if device.type == "cpu" else {}
    return with_inputs(read("text_to_image"), model=f"bundled ({model})", text="a red circle", **small, **given)


def pictures(server, asked):
    run = server.run(asked)
    assert run.ending == "execution_success", run.details
    return [levels(image) for image in server.images(run.prompt_id)]


def torch_holds(server):
    """MiB of the device that torch holds in the server."""
    return server.get("/system_stats")["devices"][0]["torch_vram_total"] / 2**20


@pytest.mark.parametrize("way", WAYS)
def test_two_models_in_turn(way, served, device, tmp_path):
    if device.type == "cpu" and way != REHEARSED:
        pytest.skip("a CPU has one way with memory")
    server = served(WAYS[way])
    expected = {model: drawn(prompt(model, device, dtype="fp32"), tmp_path / model, "cpu", tmp_path)[0]
                for model in MODELS}  # fmt: skip
    held = []
    for turn in range(TURNS):
        model = MODELS[turn % 2]
        dtype = ("auto", "fp32")[turn // 2 % 2]  # so that it is read anew, and not taken from a cache
        found = pictures(server, prompt(model, device, dtype=dtype))
        assert apart(found, expected[model]) < 4
        held.append(torch_holds(server))
    print(f"{way}: MiB that torch held after each turn: {[round(size) for size in held]}")
    assert max(held[TURNS // 2 :]) - max(held[: TURNS // 2]) < GROWTH, held
    log = server.log()
    assert "Traceback" not in log and "out of memory" not in log.lower()


def test_a_batch_that_does_not_fit_is_halved_and_finished(served, device):
    server = served((), FULL)
    asked = prompt("shapes", device)
    for node in asked.values():
        if node["class_type"] == "UnclipDecoderSample":
            node["inputs"]["batch_size"] = 9
    (best,) = pictures(server, asked)
    assert best.std() > 5
    assert all(f"{stage}: out of memory, trying again with" in server.log() for stage in ("Decoder", "CLIP"))
