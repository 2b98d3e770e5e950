"""What is installed, declared and shipped agrees with what is there."""

import fnmatch
import os
import re
import runpy
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def found_packages():
    """What setup.py hands to setuptools."""
    given = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        patch.setattr("setuptools.setup", lambda **arguments: given.update(arguments))
        runpy.run_path(str(ROOT / "setup.py"))
    return given["packages"]


PACKAGES = found_packages()


def folder(package):
    return ROOT.joinpath(*package.split(".")[1:])


def tree():
    """Files of the packages' folders, leaving out what is no part of the distribution."""
    apart = {"tests", "build", "dist", "demo", "output", "runs", "shared", "__pycache__"}
    for place, below, files in os.walk(ROOT):
        below[:] = [name for name in below if name not in apart and not name.startswith(".")]
        below[:] = [name for name in below if not name.endswith(".egg-info")]
        for name in files:
            yield Path(place, name)


def test_requirements_and_project_name_the_same_packages():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").split("\n")
    assert [line for line in lines if line] == PROJECT["project"]["dependencies"]


def told_to_install():
    """Lines that say `pip install`, with the line behind them, of all files that people read or run."""
    for path in tree():
        if path.suffix in {".py", ".md", ".json", ".toml"} and path != ROOT / "pyproject.toml":
            lines = path.read_text(encoding="utf-8").splitlines()
            for number, line in enumerate(lines):
                if "pip install" in line:
                    yield path.relative_to(ROOT), " ".join(lines[number : number + 2])


def test_what_is_to_be_installed_is_in_an_index_in_the_declared_version():
    """No index has this package: its extras can be installed from a clone alone, or package by package."""
    extras = PROJECT["project"]["optional-dependencies"].values()
    declared = {entry.split(";")[0] for group in (PROJECT["project"]["dependencies"], *extras) for entry in group}
    found = list(told_to_install())
    assert len(found) > 10
    assert [line for line in found if re.search(r"""[ '"`]unclip\[""", line[1])] == []
    named = {(path, name) for path, line in found for name in re.findall(r"[\w-]+(?:\[\w+\])?>=[\d.]*\d", line)}
    assert {name for _, name in named} >= {"ray[data]>=2.48", "accelerate>=1.0", "tensorboard>=2.14", "resvg-py>=0.5"}
    assert {pair for pair in named if pair[1] not in declared} == set()


def test_dependencies_are_the_declared_few_and_torch_is_free():
    names = {re.split(r"[<>=!~ \[]", entry)[0] for entry in PROJECT["project"]["dependencies"]}
    models = {"torch", "open_clip_torch", "safetensors", "einops", "pillow", "comfyui-frontend-package"}
    assert names == models | {"pydantic", "aiohttp"}, "ComfyUI requires the last two itself"
    assert "torch" in PROJECT["project"]["dependencies"]
    assert not any("==" in entry for entry in PROJECT["project"]["dependencies"])


def test_every_package_is_listed():
    found = {path.parent for path in tree() if path.suffix == ".py"}
    assert found == {folder(package) for package in PACKAGES}
    assert PROJECT["tool"]["setuptools"]["package-dir"] == {"unclip": "."}
    assert all((folder(package) / "__init__.py").is_file() for package in PACKAGES)


def test_everything_that_the_code_reads_is_package_data():
    patterns = [
        folder(package).relative_to(ROOT).joinpath(pattern).as_posix()
        for package, globs in PROJECT["tool"]["setuptools"]["package-data"].items()
        for pattern in globs
    ]
    inner = {path for path in tree() if path.parent != ROOT and path.suffix not in (".py", ".pyc")}
    names = sorted(path.relative_to(ROOT).as_posix() for path in inner if not path.is_relative_to(ROOT / "docs"))
    assert [name for name in names if not any(_matches(name, pattern) for pattern in patterns)] == []
    assert any(name.startswith("nodes/web/docs/") for name in names)


def _matches(name, pattern):
    """As setuptools does it: a star stays within one folder."""
    return name.count("/") == pattern.count("/") and fnmatch.fnmatchcase(name, pattern)


def test_comfyui_registry_fields():
    comfy = PROJECT["tool"]["comfy"]
    assert set(comfy) == {"PublisherId", "DisplayName", "Icon", "requires-comfyui"}
    assert comfy["DisplayName"] == "unCLIP" and comfy["PublisherId"]
    assert "comfyui" not in PROJECT["project"]["name"].lower()


def test_the_changelog_begins_with_this_version():
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert first[1] == PROJECT["project"]["version"]


def test_development_tools_are_pinned_and_pre_commit_has_the_same_ruff():
    pinned = dict(entry.split("==") for entry in PROJECT["project"]["optional-dependencies"]["dev"])
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert set(pinned) == {"ruff", "mypy"} and f"rev: v{pinned['ruff']}\n" in hooks


def test_the_check_of_changes_can_be_run():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["train", "--help"]])
def test_the_command_explains_itself(arguments, capsys):
    from unclip.__main__ import main

    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 0 and "unclip" in capsys.readouterr().out
