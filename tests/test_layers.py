"""Who imports whom, read off the sources: the layers of the house hold."""

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
HOST_MODULES = {
    "comfy", "comfy_api", "comfy_execution", "comfy_extras", "execution", "folder_paths", "latent_preview",
    "node_helpers", "server",
}  # fmt: skip
COMMANDS = "nodes/commands"
HEAVY = {"open_clip", "torchvision", "diffusers", "transformers"}
SOURCES = sorted(
    path.relative_to(ROOT)
    for pattern in ("*.py", "nodes/**/*.py", "unclip_core/**/*.py")
    for path in ROOT.glob(pattern)
)


def is_type_checking(node):
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


@cache
def imports(path, deferred=True):
    """(module of another package, level 0) or (name inside this one, level) of every import."""
    package = path.parent.parts

    def walk(node):
        for child in ast.iter_child_nodes(node):
            if not deferred and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                continue
            if not deferred and is_type_checking(child):
                continue
            if isinstance(child, ast.Import):
                yield from ((alias.name, 0) for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.level == 0:
                yield child.module, 0
            elif isinstance(child, ast.ImportFrom):
                above = package[: len(package) - child.level + 1]
                module = ".".join([*above, *([child.module] if child.module else [])])
                yield from ((f"{module}.{alias.name}".lstrip("."), child.level) for alias in child.names)
            yield from walk(child)

    return list(walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))))


def inside(path, deferred=True):
    return [target for target, level in imports(path, deferred) if level]


def outside(path, deferred=True):
    return {target.split(".")[0] for target, level in imports(path, deferred) if not level}


def name(path):
    return path.as_posix()


def below(path, *folders):
    return name(path).startswith(tuple(f"{folder}/" for folder in folders))


def test_the_reader_of_imports_reads_them():
    """On files whose imports are known: a reader that finds nothing would let every rule below pass."""
    memory, bars, words = (Path(f"nodes/host/{name}.py") for name in ("memory", "bars", "words"))
    assert {"comfy", "torch"} <= outside(memory) and {"comfy", "tqdm"} <= outside(bars)
    assert {"comfy_execution", "server"} <= outside(words)
    assert not outside(memory, deferred=False) & HOST_MODULES
    assert "unclip_core.samplers.StepInfo" in inside(bars)
    assert "nodes.sockets.PartValue" in inside(memory)


def offenders(found, paths=None):
    """path -> what `found(path)` holds against it."""
    by_path = {name(path): sorted(found(path)) for path in paths or SOURCES}
    return {path: names for path, names in by_path.items() if names}


def test_only_relative_imports_reach_the_own_package():
    """In ComfyUI the pack is called after its folder: an absolute name would find another package."""
    assert not offenders(lambda path: outside(path) & {"unclip", "nodes", "unclip_core", "tests"})


def test_only_the_host_knows_comfyui():
    knowing = offenders(lambda path: outside(path) & HOST_MODULES)
    assert knowing and all(path.startswith("nodes/host/") for path in knowing)


def test_comfyui_is_not_touched_at_import():
    """It may not be there, and without a GPU driver its modules raise."""
    assert not offenders(lambda path: outside(path, deferred=False) & HOST_MODULES)


def test_the_core_does_not_know_the_nodes():
    core = [path for path in SOURCES if below(path, "unclip_core")]
    assert len(core) > 10
    assert not offenders(lambda path: [t for t in inside(path) if not t.startswith("unclip_core")], core)


def test_training_is_imported_by_the_command_line_alone():
    others = [p for p in SOURCES if not below(p, "unclip_core/train", COMMANDS)]
    assert not offenders(lambda path: [t for t in inside(path) if t.startswith("unclip_core.train")], others)


def test_nothing_but_the_door_of_the_command_line_imports_its_commands():
    others = [path for path in SOURCES if not below(path, COMMANDS) and name(path) != "__main__.py"]
    assert not offenders(lambda path: [t for t in inside(path) if t.startswith("nodes.commands")], others)


def test_the_nodes_know_neither_training_nor_the_image_world():
    nodes = [path for path in SOURCES if below(path, "nodes") and not below(path, COMMANDS)]
    assert len(nodes) > 10
    unknown = ("unclip_core.train", "unclip_core.world")
    assert not offenders(lambda path: [t for t in inside(path) if t.startswith(unknown)], nodes)


def test_slow_packages_are_imported_late():
    others = [path for path in SOURCES if not below(path, "unclip_core/train")]
    assert not offenders(lambda path: outside(path, deferred=False) & HEAVY, others)


def test_mathematics_and_nets_import_downwards_only():
    allowed = {
        "schedules": set(),
        "embeddings": set(),
        "noise": set(),
        "denoiser": {"schedules"},
        "guidance": {"denoiser"},
        "step_rules": set(),
        "samplers": {"denoiser", "noise", "schedules", "step_rules"},
    }
    for module, known in allowed.items():
        used = {target.split(".")[1] for target in inside(Path(f"unclip_core/{module}.py"))}
        assert used <= known, module
    nets = [path for path in SOURCES if below(path, "unclip_core/nets")]
    assert nets
    assert not offenders(lambda path: [t for t in inside(path) if not t.startswith("unclip_core.nets")], nets)
