"""What the registry and the checks of changes get: the archive's contents, the repository's workflows, the icon."""

import fnmatch
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
IGNORED = [line for line in (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines() if line]


def is_ignored(path):
    """Whether the archive leaves a path out: a folder with a slash behind it, or a pattern of a file."""
    folders = {f"{part}/" for part in path.split("/")[:-1]}
    return any(
        bool(fnmatch.filter(folders, pattern)) if pattern.endswith("/") else fnmatch.fnmatch(path, pattern)
        for pattern in IGNORED
    )


@pytest.mark.parametrize(
    "path",
    ["__init__.py", "pyproject.toml", "requirements.txt", "README.md", "LICENSE", "nodes/loaders.py", "icon.svg",
     "nodes/web/docs/UnclipLoadModel.md", "nodes/web/docs/UnclipLoadModel/de.md", "nodes/web/js/words.js",
     "nodes/web/js/pad.js", "nodes/web/js/pick.js", "subgraphs/Inpaint (unCLIP).json",
     "workflows/text_to_image.json", "workflows/text_to_image.jpg",
     "workflows/api/text_to_image.json", "unclip_core/bundled/shapes/decoder.safetensors",
     "unclip_core/bundled/things/decoder.safetensors", "NOTICE", "locales/zh/nodeDefs.json",
     "locales/zh/main.json"],
)  # fmt: skip
def test_what_the_pack_needs_is_in_the_archive(path):
    assert (ROOT / path).is_file() and not is_ignored(path)


@pytest.mark.parametrize(
    "path",
    ["tests/test_publishing.py", ".github/workflows/tests.yml", ".ci/run", "Makefile", "locales/zh/phrases.json"],
)
def test_what_only_its_makers_need_is_not(path):
    assert (ROOT / path).is_file() and is_ignored(path)


def test_changes_are_checked_as_on_a_makers_machine():
    text = (ROOT / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    assert all(f"make {name}\n" in text for name in ("lint", "test", "test-slow")) and "make test-comfyui" in text


def test_what_has_to_pass_runs_every_test_once():
    """A test is marked slow or it is not, whatever else it is marked."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    run = re.findall(r"^make (test\S*)$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.M)
    chosen = [re.search(rf"^{name}:.*\n\t@\$\(PYTEST\)(.*)$", makefile, re.M)[1].strip() for name in run]
    assert sorted(chosen) == ['-m "not slow"', "-m slow"]


def test_publishing_takes_its_token_from_the_secrets():
    text = (ROOT / ".github" / "workflows" / "publish.yml").read_text(encoding="utf-8")
    assert "publish-node-action" in text and "${{ secrets." in text


def test_the_icon_is_a_square_drawing_that_loads_nothing():
    root = ElementTree.parse(ROOT / "icon.svg").getroot()
    assert root.get("width") == root.get("height") == "400"
    text = (ROOT / "icon.svg").read_text(encoding="utf-8")
    assert "href" not in text and "<script" not in text and "<image" not in text


def test_comfyuis_own_tool_has_nothing_against_publishing_it(tmp_path):
    """`comfy node validate`, as the registry's action runs it before it publishes."""
    command = [sys.executable, "-m", "comfy_cli", "--skip-prompt", "node", "validate"]
    environment = os.environ | {"DO_NOT_TRACK": "1", "NO_COLOR": "1", "HOME": str(tmp_path)}  # it keeps a folder there
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "All validation checks passed" in said, said
    assert not re.search("(?i)warning|error", said), said
