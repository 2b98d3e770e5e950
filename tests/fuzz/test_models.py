"""Model folders of every layout under damage: a model or a CheckpointError, whatever the bytes."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from factories import add_second_upsampler, randomise, write_model
from fuzz.mutations import as_json, damaged, damaged_bytes, damaged_json, fuzzed, survives
from hypothesis import given
from hypothesis import strategies as st
from kakao_files import write_kakao
from safetensors.torch import load_file, save, save_file

from unclip.unclip_core.families.kandinsky22.random_decoder import small_size as small_decoder
from unclip.unclip_core.families.kandinsky22.random_decoder import write_random_decoder
from unclip.unclip_core.families.kandinsky22.random_prior import small_size as small_prior
from unclip.unclip_core.families.kandinsky22.random_prior import write_random_prior
from unclip.unclip_core.families.karlo.names import PRIOR, renamed
from unclip.unclip_core.families.karlo.random_weights import small_size, write_random_karlo
from unclip.unclip_core.families.loading import load_model
from unclip.unclip_core.families.prior_config import prior_config
from unclip.unclip_core.models import PARTS
from unclip.unclip_core.nets.one_pass_prior import EXTRA_TOKENS, OnePassPrior
from unclip.unclip_core.nets.prior import PriorParams
from unclip.unclip_core.weights.files import CheckpointError, load_weights

pytestmark = pytest.mark.slow

LAYOUTS = ("native", "karlo", "kakao", "kandinsky", "kandinsky-decoder", "kandinsky-hint", "eclipse")
WITH_JSON = [layout for layout in LAYOUTS if layout != "kakao"]
PARTS_OF = {
    "kakao": {"prior", "decoder", "upsampler"},
    "kandinsky": {"clip", "prior"},
    "kandinsky-decoder": {"decoder"},
    "kandinsky-hint": {"decoder"},
    "eclipse": {"prior"},
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A good folder of each layout, and a place to damage a copy of it."""
    place = tmp_path_factory.mktemp("fuzz")
    (place / "native").mkdir()
    add_second_upsampler(write_model(place / "native"), from_size=64)
    write_random_karlo(place / "karlo", small_size())
    write_kakao(place / "kakao", clip=False)
    write_random_prior(place / "kandinsky", small_prior())
    write_random_decoder(place / "kandinsky-decoder", small_decoder())
    write_random_decoder(place / "kandinsky-hint", small_decoder(beside="hint"))
    write_eclipse(place / "eclipse", small_prior().prior)
    for name in LAYOUTS:
        shutil.copytree(place / name, place / f"{name}-damaged")
    return place


def write_eclipse(folder: Path, params: PriorParams):
    """A prior of one pass as ECLIPSE publishes it: a configuration and weights, no index."""
    net = randomise(OnePassPrior(params), 5)
    folder.mkdir()
    save_file({renamed(key, PRIOR): value for key, value in net.state_dict().items()}, folder / "model.safetensors")
    config = prior_config(params) | {"additional_embeddings": EXTRA_TOKENS}
    (folder / "config.json").write_text(json.dumps(config))


def read_whole(folder: Path):
    """Open a model and read all its parts; use CLIP, so that its tokenizer is tried too."""
    model = load_model(folder)
    model.reader.check()
    for part in PARTS:
        if model.has(part):
            getattr(model.reader, part)()
    if model.has("clip") and model.clip.adapter.has_text:
        model.clip.adapter.encode_text(["a red circle!"])
    return model


def try_with(folders: Path, layout: str, path: Path, data: bytes):
    """Read the folder with `data` in place of the file `path`, which is put back afterwards."""
    target = folders / f"{layout}-damaged" / path
    good = (folders / layout / path).read_bytes()
    try:
        target.unlink()  # a mapped file is never written into
        target.write_bytes(data)
        survives(lambda: read_whole(folders / f"{layout}-damaged"), CheckpointError)
    finally:
        target.unlink()
        target.write_bytes(good)


def files(folder: Path, *suffixes: str):
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.suffix in suffixes)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_good_folders_are_read(folders, layout):
    model = read_whole(folders / f"{layout}-damaged")
    assert model.reader.parts == PARTS_OF.get(layout, set(PARTS))


@pytest.mark.parametrize("layout", LAYOUTS)
@fuzzed
@given(data=st.data())
def test_weights(folders, layout, data):
    path = data.draw(st.sampled_from(files(folders / layout, ".safetensors", ".ckpt", ".pt", ".th")))
    good = (folders / layout / path).read_bytes()
    try_with(folders, layout, path, data.draw(damaged_bytes(good)))


@pytest.mark.parametrize("layout", WITH_JSON)
@fuzzed
@given(data=st.data())
def test_json(folders, layout, data):
    path = data.draw(st.sampled_from(files(folders / layout, ".json")))
    good = json.loads((folders / layout / path).read_text(encoding="utf-8"))
    try_with(folders, layout, path, data.draw(damaged_json(good)))


@fuzzed
@given(data=st.data())
def test_merges(folders, data):
    path = Path("tokenizer", "merges.txt")
    try_with(folders, "karlo", path, data.draw(damaged_bytes((folders / "karlo" / path).read_bytes())))


@fuzzed
@given(data=st.data())
def test_headers_of_native_weights(folders, data):
    path = data.draw(st.sampled_from(files(folders / "native", ".safetensors")))
    tensors, config = load_weights(folders / "native" / path)
    header = data.draw(damaged_json(config)).decode("utf-8", "replace")
    try_with(folders, "native", path, save(tensors, {"config": header}))


@fuzzed
@given(data=st.data())
def test_yaml(folders, data):
    path = Path("decoder.yaml")
    good = yaml.safe_load((folders / "kakao" / path).read_text())
    strange = [b"a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]", b"[" * 5000, b"model: !!python/object:os.system {}"]
    text = st.one_of(
        damaged(good).map(as_json), damaged_bytes((folders / "kakao" / path).read_bytes()), st.sampled_from(strange)
    )
    try_with(folders, "kakao", path, data.draw(text))


KINDS = [torch.int8, torch.bool, torch.complex64, torch.float64, torch.float16, torch.float8_e4m3fn, torch.uint8]


@pytest.mark.parametrize("layout", WITH_JSON)
@fuzzed
@given(data=st.data())
def test_tensors(folders, layout, data):
    """Another dtype or shape, another name, one missing, one too many."""
    path = data.draw(st.sampled_from(files(folders / layout, ".safetensors")))
    tensors = load_file(folders / layout / path)
    header = {"config": json.dumps(load_weights(folders / layout / path)[1])} if layout == "native" else None
    key = data.draw(st.sampled_from(sorted(tensors)))
    kind, shape = data.draw(st.sampled_from(KINDS)), data.draw(st.lists(st.integers(0, 3), max_size=4))
    changes = {
        "dtype": {key: tensors[key].to(kind)},
        "shape": {key: torch.zeros(shape)},
        "more": {data.draw(st.text(max_size=8).filter("__metadata__".__ne__)): torch.zeros(shape, dtype=kind)},
        "less": {},
    }
    how = data.draw(st.sampled_from(sorted(changes)))
    kept = {name: value for name, value in tensors.items() if how != "less" or name != key}
    try_with(folders, layout, path, save(kept | changes[how], header))


@fuzzed
@given(data=st.data())
def test_openais_clip(folders, tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "fuzzed-clip"
    if not folder.exists():
        write_kakao(folder)
        for path in folder.glob("[abcd].*"):
            path.unlink()
        (folder / "e.pt").rename(folder / "good")
    (folder / "e.pt").unlink(missing_ok=True)
    (folder / "e.pt").write_bytes(data.draw(damaged_bytes((folder / "good").read_bytes())))
    survives(lambda: read_whole(folder), CheckpointError)


def test_more_blocks_named_than_held(folders, tmp_path):
    """A name of a block may say a billion: what the file holds counts."""
    folder = shutil.copytree(folders / "kakao", tmp_path / "kakao")
    held = torch.load(folder / "b.ckpt", weights_only=True)
    held["state_dict"]["model.output_blocks.999999.0.in_layers.0.weight"] = torch.zeros(1)
    torch.save(held, folder / "b.ckpt")
    with pytest.raises(CheckpointError, match="block 999999"):
        _ = load_model(folder).decoder


@pytest.mark.parametrize(
    ("file", "key", "number"),
    [
        ("prior/config.json", "num_layers", 10**9),
        ("decoder/config.json", "layers_per_block", 10**9),
        ("text_encoder/config.json", "num_hidden_layers", 10**9),
        ("text_encoder/config.json", "vocab_size", 10**12),
        ("prior_scheduler/scheduler_config.json", "num_train_timesteps", 10**9),
        ("decoder_scheduler/scheduler_config.json", "num_train_timesteps", -1),
    ],
)
def test_a_number_beyond_any_net(folders, tmp_path, file, key, number):
    folder = shutil.copytree(folders / "karlo", tmp_path / "karlo")
    config = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(config | {key: number}))
    with pytest.raises(CheckpointError, match=Path(file).name):
        read_whole(folder)


@pytest.mark.parametrize(("part", "path"), [("prior", "layers"), ("decoder", "unet.mid_blocks"), ("prior", "T")])
def test_a_number_beyond_any_net_in_a_header(folders, tmp_path, part, path):
    folder = shutil.copytree(folders / "native", tmp_path / "native")
    tensors, config = load_weights(folder / f"{part}.safetensors")
    table = config["net"]
    for step in path.split(".")[:-1]:
        table = table[step]
    if path == "T":
        config["diffusion"]["train_steps"] = 10**9
    else:
        table[path.split(".")[-1]] = 10**9
    save_file(tensors, folder / f"{part}.safetensors", {"config": json.dumps(config)})
    with pytest.raises(CheckpointError, match=rf"header of .*{part}\.safetensors"):
        read_whole(folder)
