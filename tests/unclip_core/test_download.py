"""`unclip download`: which files are fetched, where to, and what is said when it does not work. No network."""

import huggingface_hub
import pytest

from unclip.unclip_core.checkpoints import download as module
from unclip.unclip_core.checkpoints.download import LICENCE, REPOSITORIES, download, needed_files
from unclip.unclip_core.checkpoints.files import CheckpointError

HUB = [
    ".gitattributes", "README.md", "model_index.json", "assets/a.png",
    "prior/config.json", "prior/diffusion_pytorch_model.bin", "prior/diffusion_pytorch_model.safetensors",
    "prior/diffusion_pytorch_model.fp16.safetensors", "prior/diffusion_pytorch_model.fp16.bin",
    "decoder/config.json", "decoder/diffusion_pytorch_model.bin", "decoder/diffusion_pytorch_model.fp16.bin",
    "decoder_scheduler/scheduler_config.json", "tokenizer/vocab.json", "tokenizer/merges.txt",
    "super_res_first/config.json", "super_res_first/diffusion_pytorch_model.safetensors.index.json",
    "super_res_first/diffusion_pytorch_model-00001-of-00002.safetensors",
    "super_res_first/diffusion_pytorch_model-00002-of-00002.safetensors",
]
NEEDED = {
    "model_index.json", "prior/config.json", "prior/diffusion_pytorch_model.safetensors", "decoder/config.json",
    "decoder/diffusion_pytorch_model.bin", "decoder_scheduler/scheduler_config.json", "tokenizer/vocab.json",
    "tokenizer/merges.txt", "super_res_first/config.json",
    "super_res_first/diffusion_pytorch_model.safetensors.index.json",
    "super_res_first/diffusion_pytorch_model-00001-of-00002.safetensors",
    "super_res_first/diffusion_pytorch_model-00002-of-00002.safetensors",
}


def test_only_one_form_of_each_components_weights_is_needed():
    assert set(needed_files(HUB)) == NEEDED
    assert len(needed_files(HUB)) == len(NEEDED)


@pytest.fixture
def hub(monkeypatch):
    """A hub that writes what it is asked for, and remembers it."""
    asked = []

    class Api:
        def list_repo_files(self, repository, revision=None):
            asked.append(repository)
            return HUB

    def fetch(repository, file, revision=None, local_dir=None):
        target = local_dir / file
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
        asked.append((repository, file))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetch)
    return asked


@pytest.mark.parametrize(("name", "repository"), REPOSITORIES.items())
def test_it_fetches_into_a_folder_of_the_models_name(hub, tmp_path, capsys, name, repository):
    folder = download(name, str(tmp_path))
    assert folder == tmp_path / repository.split("/")[1]
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == NEEDED
    assert hub == [repository, *((repository, file) for file in needed_files(HUB))]
    said = capsys.readouterr().out
    assert LICENCE in said and f"[{len(NEEDED)}/{len(NEEDED)}]" in said


def test_no_network_is_said_in_a_sentence(monkeypatch, tmp_path):
    class Api:
        def list_repo_files(self, repository, revision=None):
            raise ConnectionError("no route to the hub\nmore")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    with pytest.raises(CheckpointError, match="could not be fetched .no route to the hub.*run the command again"):
        download("karlo", str(tmp_path))


def test_unknown_models_are_refused(hub, tmp_path):
    with pytest.raises(CheckpointError, match="karlo, karlo-variations"):
        download("dall-e", str(tmp_path))
    assert hub == []


def test_comfyuis_folder_is_found_around_the_package(monkeypatch, tmp_path):
    package = tmp_path / "ComfyUI" / "custom_nodes" / "unclip" / "unclip_core" / "checkpoints" / "download.py"
    monkeypatch.setattr(module, "__file__", str(package))
    with pytest.raises(CheckpointError, match="--to"):
        module.comfyui_models()
    (tmp_path / "ComfyUI" / "models").mkdir(parents=True)
    assert module.comfyui_models() == tmp_path / "ComfyUI" / "models" / "unclip"


def test_nothing_but_the_command_fetches():
    """No node may go online by itself: only the command line and the module itself name it."""
    from pathlib import Path

    root = Path(module.__file__).parents[2]
    sources = [*root.glob("*.py"), *root.glob("nodes/**/*.py"), *root.glob("unclip_core/**/*.py")]
    users = {path.relative_to(root).as_posix() for path in sources
             if "huggingface_hub import" in (text := path.read_text(encoding="utf-8")) or ".download import" in text}
    assert users == {"__main__.py", "unclip_core/checkpoints/download.py"}
