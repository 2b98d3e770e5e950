"""Trainings on own images with small nets: overfit, killed, stopped, on a full disk, on damaged data."""

import errno
import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from PIL import Image

pytest.importorskip("accelerate")

from own_training import NAMES, config_of, curve, train, write_images

from unclip.unclip_core import pipelines
from unclip.unclip_core.data.center_crop import center_crop
from unclip.unclip_core.families.loading import load_model
from unclip.unclip_core.train import engine as engine_module
from unclip.unclip_core.train import processes as processes_module
from unclip.unclip_core.train import run as run_module
from unclip.unclip_core.train.embeds import EmbeddingStore
from unclip.unclip_core.train.objectives import DecoderObjective, UpsamplerObjective
from unclip.unclip_core.train.run import INTERRUPTED
from unclip.unclip_core.weights.files import load_weights


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As in the processes that the tests start: sums over other numbers of threads round otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def model(tmp_path_factory, images):
    """A folder with a CLIP that knows the sixteen images; what goes on top of it is trained by the tests."""
    output = tmp_path_factory.mktemp("models") / "sixteen"
    assert train("clip", images, output, config_of("clip", 100, lr=4e-3)) == 0
    return output


def mean_of_last(values, count=10):
    return sum(list(values.values())[-count:]) / count


@pytest.mark.slow
def test_clip_tells_sixteen_images_apart(model):
    losses = curve(model, "clip")
    assert losses[1] > math.log(16) / 2
    assert mean_of_last(losses) < 0.05 and mean_of_last(curve(model, "clip", "accuracy")) == 1.0
    clip = load_model(model).clip
    assert clip.family == "sixteen"


@pytest.mark.slow
def test_the_other_three_learn_sixteen_images_by_heart_and_the_folder_draws_them(model, images):
    assert train("prior", images, model, config_of("prior", 150, batch=64, lr=3e-3)) == 0
    assert train("decoder", images, model, config_of("decoder", 120, batch=32, lr=3e-3, sample_every=120)) == 0
    assert train("upsampler", images, model, config_of("upsampler", 100)) == 0
    for stage, first, last in (("prior", 0.7, 0.03), ("decoder", 0.2, 0.01), ("upsampler", 0.2, 0.01)):
        losses = curve(model, stage)
        assert losses[1] > first and mean_of_last(losses) < last, stage
    assert (model / "training" / "decoder" / "samples" / "00000120.png").is_file()
    made = load_model(model)
    text = pipelines.encode_text(made.clip, [f"a {name}" for name in NAMES])
    embeds = pipelines.sample_prior(made.prior, text, steps=10, guidance_scale=1, seeds=range(16))
    drawn = pipelines.sample_decoder(made.decoder, embeds, text=text, steps=10, guidance_scale=1, seeds=range(16))
    large = pipelines.upscale(made.upsampler, drawn, steps=4, seeds=range(16))
    assert large.shape == (16, 32, 32, 3)
    true = torch.stack([sample_pixels(images, name) for name in NAMES])
    nearest = (drawn[:, None] - true[None]).square().flatten(2).mean(dim=2).argmin(dim=1)
    assert (nearest == torch.arange(16)).float().mean() > 0.9


def sample_pixels(images, name):
    return center_crop(Image.open(images / f"{name}.png"), 16).float() / 255


def prior_config(steps, **training):
    config = config_of("prior", steps, **training)
    config["loss"] = {"drop_text": 0.3, "weighting": "min_snr", "times": "logit_normal"}
    return config


def begun(model, folder):
    """A new model folder with the CLIP of another."""
    folder.mkdir(parents=True)
    for name in ("clip.safetensors",):
        (folder / name).write_bytes((model / name).read_bytes())
    index = json.loads((model / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"components": {"clip": "clip.safetensors"}}))
    return folder


def started(stage, data, config, output, launcher=()):
    """A training in a process of its own, or in those of a launcher."""
    path = output.parent / f"{output.name}.json"
    path.write_text(json.dumps(config))
    command = [
        sys.executable,
        "-m",
        *launcher,
        "unclip",
        "train",
        stage,
        "--data",
        data,
        "--config",
        path,
        "--output",
        output,
        "--cpu",
    ]
    return subprocess.Popen(
        list(map(str, command)),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_killed_and_resumed_is_as_undisturbed(model, images, tmp_path):
    whole, parted = begun(model, tmp_path / "whole" / "m"), begun(model, tmp_path / "parted" / "m")
    config = prior_config(60, save_minutes=0.0)
    assert train("prior", images, whole, config) == 0
    process = started("prior", images, config, parted)
    log = parted / "training" / "prior" / "log.jsonl"
    while process.poll() is None and not (log.is_file() and len(log.read_text().splitlines()) > 15):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    state = torch.load(parted / "training" / "prior" / "state.pt", weights_only=True)
    assert 10 < state["step"] < 60 and (parted / "prior.safetensors").is_file()
    assert train("prior", images, parted, config) == 0
    assert list(curve(parted, "prior")) == list(range(1, 61)) and not list(parted.rglob(".*.part"))
    assert curve(parted, "prior") == pytest.approx(curve(whole, "prior"), rel=1e-6)
    ours, _ = load_weights(parted / "prior.safetensors")
    for name, tensor in load_weights(whole / "prior.safetensors")[0].items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["clip", "decoder"])
def test_two_processes_give_the_curve_of_one(model, images, tmp_path, stage):
    one, two = tmp_path / "one", tmp_path / "two"
    # Muon's iterations in bfloat16 would make more of the sums' rounding than AdamW does.
    config = config_of(stage, 12, base=str(model), optimizer="adamw")
    if stage == "clip":
        config["base"] = "output"
    else:
        config["loss"] = {}
        config["training"]["accumulation"] = 2
    assert train(stage, images, one, config) == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launcher = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", port, "-m"]
    said, _ = (crew := started(stage, images, config, two, launcher=launcher)).communicate(timeout=300)
    assert crew.returncode == 0 and "Processes: 2, each on cpu" in said, said
    assert curve(two, stage) == pytest.approx(curve(one, stage), rel=1e-4)
    assert curve(two, stage, "grad_norm") == pytest.approx(curve(one, stage, "grad_norm"), rel=1e-3)


def test_accumulation_and_recomputation_leave_the_curve(model, images, tmp_path):
    plain, parted = tmp_path / "plain", tmp_path / "parted"
    assert train("decoder", images, plain, config_of("decoder", 6, base=str(model), optimizer="adamw")) == 0
    config = config_of("decoder", 6, base=str(model), optimizer="adamw", accumulation=4, checkpointing=True)
    assert train("decoder", images, parted, config) == 0
    assert curve(parted, "decoder") == pytest.approx(curve(plain, "decoder"), rel=1e-4)


def forget_precision():
    """accelerate keeps one precision a process."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def another_precision():
    forget_precision()
    yield
    forget_precision()


@pytest.fixture(scope="module")
def float32(model, images, tmp_path_factory):
    """The curve that other precisions follow."""
    output = tmp_path_factory.mktemp("precision") / "full"
    assert train("decoder", images, output, config_of("decoder", 6, base=str(model), optimizer="adamw")) == 0
    return curve(output, "decoder")


@pytest.mark.slow
def test_float16_scales_its_loss_and_keeps_the_scale(model, images, tmp_path, monkeypatch, another_precision, native):
    """As on a GPU: accelerate leaves fp16 out on a CPU, though torch computes it there too."""
    make, scale = run_module.make_accelerator, 2.0**22
    forward, computed = DecoderObjective.forward, []

    def half_on_cpu(training, cpu):
        forget_precision()
        accelerator = make(replace(training, precision="bf16"), cpu)
        accelerator.state._mixed_precision = "fp16"
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        return accelerator

    def watched(self, batch):
        computed.append(torch.get_autocast_dtype("cpu"))
        return forward(self, batch)

    monkeypatch.setattr(run_module, "make_accelerator", half_on_cpu)
    monkeypatch.setattr(DecoderObjective, "forward", watched)
    output, config = tmp_path / "half", config_of("decoder", 10, base=str(model), precision="fp16")
    assert train("decoder", images, output, config) == 0
    skipped, half = curve(output, "decoder", "skipped"), curve(output, "decoder")
    assert skipped[1] == 1.0 and skipped[10] == 0.0 and curve(output, "decoder", "grad_norm")[1] == 0.0
    assert half[10] < 0.5 * half[1] and set(computed) == {torch.float16}
    state = torch.load(output / "training" / "decoder" / "state.pt", weights_only=True)
    assert state["scaler"]["scale"] == scale / 2 ** sum(skipped.values())
    config["training"]["steps"] = 11
    assert train("decoder", images, output, config) == 0
    assert curve(output, "decoder", "skipped")[11] == 0.0  # with the first scale it would have been


def test_float16_without_a_gpu_is_refused(images, tmp_path, another_precision):
    with pytest.raises(ValueError, match="needs a GPU"):
        train("upsampler", images, tmp_path / "m", config_of("upsampler", 1, precision="fp16"), cpu=True)
    assert not (tmp_path / "m").exists()


def test_bfloat16_follows_float32(model, images, tmp_path, float32, another_precision, native):
    output = tmp_path / "half"
    assert (
        train("decoder", images, output, config_of("decoder", 6, base=str(model), optimizer="adamw", precision="bf16"))
        == 0
    )
    half = curve(output, "decoder")
    assert half == pytest.approx(float32, rel=0.05) and half != float32
    kept, _ = load_weights(output / "decoder.safetensors")
    assert {tensor.dtype for tensor in kept.values()} == {torch.float32}


def test_bfloat16_is_float32_where_the_processor_would_emulate_it(
    model, images, tmp_path, float32, another_precision, emulated, capsys
):
    config = config_of("decoder", 6, base=str(model), optimizer="adamw", precision="bf16")
    assert train("decoder", images, tmp_path / "m", config) == 0
    assert curve(tmp_path / "m", "decoder") == float32
    said = [line for line in capsys.readouterr().out.splitlines() if "instructions" in line]
    assert said == ["Precision: bf16, computed in fp32: this processor has no bf16 instructions."]


def test_an_interrupt_saves_and_the_same_command_goes_on(images, tmp_path, monkeypatch):
    config = config_of("upsampler", 12)
    assert train("upsampler", images, tmp_path / "whole", config) == 0
    once, calls = UpsamplerObjective.forward, []

    def interrupted(self, batch):
        calls.append(1)
        if len(calls) == 6:
            os.kill(os.getpid(), signal.SIGINT)
        return once(self, batch)

    output = tmp_path / "m"
    monkeypatch.setattr(UpsamplerObjective, "forward", interrupted)
    assert train("upsampler", images, output, config) == INTERRUPTED
    assert list(curve(output, "upsampler")) == list(range(1, 7))
    assert load_model(output).upsampler.scale == 2
    monkeypatch.setattr(UpsamplerObjective, "forward", once)
    assert train("upsampler", images, output, config) == 0
    assert curve(output, "upsampler") == pytest.approx(curve(tmp_path / "whole", "upsampler"), rel=1e-6)


def test_a_full_disk_does_not_end_a_training(images, tmp_path, monkeypatch, capsys):
    write, calls = engine_module.write_state, []

    def full_twice(folder, state):
        calls.append(state["step"])
        if len(calls) < 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(folder, state)

    monkeypatch.setattr(engine_module, "write_state", full_twice)
    assert train("upsampler", images, tmp_path / "m", config_of("upsampler", 4, save_minutes=0.0)) == 0
    assert calls == [1, 2, 3, 4] and "No space left" in capsys.readouterr().out
    monkeypatch.setattr(engine_module, "write_state", lambda folder, state: full_twice(folder, calls.clear() or state))
    with pytest.raises(OSError, match="No space left"):
        train("upsampler", images, tmp_path / "m", config_of("upsampler", 5))
    assert torch.load(tmp_path / "m" / "training" / "upsampler" / "state.pt", weights_only=True)["step"] == 4


def test_bad_files_are_named_and_a_changed_setting_is_refused(model, tmp_path, capsys):
    data = write_images(tmp_path / "data", 6)
    (data / "broken.png").write_bytes((data / "bell.png").read_bytes()[:90])
    (data / "broken.txt").write_text("a broken one")
    (data / "silent.png").write_bytes((data / "bell.png").read_bytes())
    output = begun(model, tmp_path / "m")
    assert train("prior", data, output, config_of("prior", 2)) == 0
    said = capsys.readouterr().out
    assert "2 of 8 samples were left out" in said and "broken.png" in said and "silent.png: it has no caption" in said
    assert train("upsampler", data, output, config_of("upsampler", 2)) == 0
    assert "1 of 8" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"training.lr was 0.002 and is 0.1"):
        train("prior", data, output, config_of("prior", 3, lr=0.1))
    assert train("prior", data, output, config_of("prior", 3)) == 0


def test_embeddings_are_computed_once_and_are_what_clip_says(model, images, tmp_path):
    output = begun(model, tmp_path / "m")
    assert train("prior", images, output, config_of("prior", 1)) == 0
    (shard,) = (output / "training" / "embeddings").rglob("embeddings-*.safetensors")
    before = shard.stat().st_mtime_ns
    assert run_module.embed(str(images), str(output / "training" / "embeddings"), str(output)) == 0
    assert train("decoder", images, output, config_of("decoder", 1)) == 0
    assert shard.stat().st_mtime_ns == before
    assert [path for path in (output / "training" / "embeddings").rglob("embeddings-*")] == [shard]
    store, clip = EmbeddingStore(shard.parent, captions=True), load_model(model).clip
    text = pipelines.encode_text(clip, [f"a {NAMES[3]}"])
    row = store.row(3)
    assert store.rows == 16 and store.source(3) == 3
    torch.testing.assert_close(row["text_embeds"], text.embeds[0])
    read = text.mask[0]
    assert torch.equal(row["text_mask"], read)
    torch.testing.assert_close(row["text_states"][read], text.states[0][read], rtol=1e-3, atol=1e-3)
    image = pipelines.encode_image(clip, sample_pixels(images, NAMES[3])[None])
    torch.testing.assert_close(row["image_embeds"], image[0], rtol=1e-4, atol=1e-4)
    every = torch.stack([store.row(number)["image_embeds"] for number in range(16)])
    torch.testing.assert_close(store.mean[0], every.mean(dim=0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(store.std[0], every.std(dim=0, correction=0), rtol=1e-3, atol=1e-5)


def test_a_board_that_is_not_installed_is_said_before_anything_is_written(images, tmp_path, monkeypatch):
    monkeypatch.setattr(processes_module, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="needs the package 'tensorboard'"):
        train("upsampler", images, tmp_path / "m", config_of("upsampler", 2, tensorboard=True))
    assert not (tmp_path / "m").exists()


def test_sheets_go_to_tensorboard_too(images, tmp_path):
    pytest.importorskip("tensorboard")
    config = config_of("upsampler", 2, sample_every=2, tensorboard=True)
    assert train("upsampler", images, tmp_path / "m", config) == 0
    place = tmp_path / "m" / "training" / "upsampler"
    assert (place / "samples" / "00000002.png").is_file() and list((place / "tensorboard").glob("events*"))


def test_two_stages_written_at_once_lose_no_entry(images, tmp_path, monkeypatch):
    """Each reads the index and writes it with its own part: without a lock the slower one drops the other's."""
    from threading import Thread

    from unclip.unclip_core.families.native import writer

    config = config_of("upsampler", 1)
    config["family"] = "m"
    assert train("clip", images, tmp_path / "m", config_of("clip", 1)) == 0
    saved = writer.save_weights

    def slow(path, *rest):
        saved(path, *rest)
        time.sleep(0.3)

    write = writer.write_index

    def slower(*rest):
        time.sleep(0.5)
        write(*rest)

    monkeypatch.setattr(writer, "save_weights", slow)
    monkeypatch.setattr(writer, "write_index", slower)
    crew = [
        Thread(target=train, args=(stage, images, tmp_path / "m", config_of(stage, 1)))
        for stage in ("prior", "upsampler")
    ]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    assert load_model(tmp_path / "m").reader.parts == {"clip", "prior", "upsampler"}
