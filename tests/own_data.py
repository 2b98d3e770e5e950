"""Small images with captions, as a folder, as shards and as a dataset."""

import io
import tarfile

import pytest
from PIL import Image

COLORS = {"a": (255, 0, 0), "b": (0, 255, 0), "c": (0, 0, 255)}


def png(color, mode="RGB", size=(5, 4)):
    buffer = io.BytesIO()
    Image.new(mode, size, color).save(buffer, "PNG")
    return buffer.getvalue()


FILES = {f"{name}.png": png(color) for name, color in COLORS.items()}
FILES |= {f"{name}.txt": f" the image {name}\n".encode() for name in COLORS}


def write_folder(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def write_shard(path, files):
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def write_dataset(folder, rows):
    datasets = pytest.importorskip("datasets")
    text = datasets.Value("string")
    captions = datasets.List(text) if isinstance(rows[0][1], list) else text
    features = datasets.Features({"image": datasets.Image(), "caption": captions})
    cells = {"image": [{"bytes": data, "path": None} for data, _ in rows], "caption": [said for _, said in rows]}
    datasets.Dataset.from_dict(cells, features).save_to_disk(str(folder))
    return folder
