"""The layers of the house: who may import whom, read off the sources (`rooms` reads them)."""

import ast
from pathlib import Path

import pytest
from rooms import HERE, House, circles, module_name, room_of

HOUSE = House()
HOST_MODULES = {
    "comfy", "comfy_api", "comfy_execution", "comfy_extras", "execution", "folder_paths", "latent_preview",
    "node_helpers", "server",
}  # fmt: skip
SLOW = {
    "pydantic",
    "aiohttp",
    "open_clip",
    "torchvision",
    "diffusers",
    "transformers",
    "accelerate",
    "peft",
    "datasets",
    "tensorboard",
}

ANYWHERE = {"parsing", "listing", "output", "fresh_process"}  # every room may read, list, print and ask through them
WEIGHTS_AND_MATHS = {"weights", "diffusion"}
NETS = {"nets", *WEIGHTS_AND_MATHS}
MODELS = {"models", "clip", "embedding", *NETS}
FAMILIES = {"families", "lora", *MODELS}
PIPELINES = {"pipelines", *FAMILIES}
TOOLS = {"data", "plotting", "world", *PIPELINES}
MEASURES = {"evaluate", "bench", "train", *TOOLS}

MAY_IMPORT = {
    "parsing": set(),
    "output": set(),
    "listing": set(),
    "fresh_process": set(),
    "weights": set(),
    "diffusion": set(),
    "data": set(),
    "plotting": set(),
    "world": set(),
    "nets": WEIGHTS_AND_MATHS,
    "clip": NETS,
    "embedding": {"weights"},
    "models": MODELS - {"models"},
    "lora": MODELS,
    "families": FAMILIES - {"families"},
    "pipelines": PIPELINES - {"pipelines"},
    "train": TOOLS,
    "evaluate": TOOLS,
    "bench": TOOLS,
    "recipes": MEASURES,
}
"""Room of unclip_core -> the rooms below it. A room that is not here has no place yet: say where it stands."""

NODES_MAY_IMPORT = PIPELINES | {"plotting"}
THE_HOST_MAY_KNOW = {"nodes.sockets", "nodes.inputs", "nodes.defaults", "nodes.images"}


def inside(path):
    return HOUSE.imported_modules(path)


def outside(path, deferred=True):
    """Top names of the packages that one source imports from elsewhere."""
    found = HOUSE.imports(path)
    return {i.target.split(".")[0] for i in found if not i.inside and (deferred or not i.deferred)}


def below(*folders):
    return [path for path in HOUSE.sources if path.as_posix().startswith(tuple(f"{folder}/" for folder in folders))]


def offenders(found, paths):
    """path -> what `found(path)` holds against it."""
    by_path = {path.as_posix(): sorted(found(path)) for path in paths}
    return {path: names for path, names in by_path.items() if names}


def test_the_reader_of_imports_reads_them():
    """On files whose imports are known: a reader that finds nothing would let every rule below pass."""
    memory, files = Path("nodes/host/memory.py"), Path("nodes/host/files.py")
    assert {"comfy", "torch"} <= outside(memory)
    assert "folder_paths" in outside(files)
    assert not outside(memory, deferred=False) & HOST_MODULES
    assert "nodes.sockets" in inside(memory)
    assert {"nodes.host", ""} <= inside(Path("cli/headless/run.py"))


def test_the_reader_of_circles_finds_them():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"f"}, "f": {"e"}}
    assert circles(graph) == [["a", "b", "c"], ["e", "f"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_the_reader_tells_a_deferred_import_from_one_at_the_top(tmp_path):
    (tmp_path / "unclip_core").mkdir()
    (tmp_path / "unclip_core" / "one.py").write_text(
        "from typing import TYPE_CHECKING\nfrom . import two\nif TYPE_CHECKING:\n    import late_one\n"
        "def f():\n    import late_two\nclass A:\n    import early\n"
    )
    (tmp_path / "unclip_core" / "two.py").write_text("from .one import f\n")
    house, one = House(tmp_path), Path("unclip_core/one.py")
    assert {i.target: i.deferred for i in house.imports(one)} == {
        "typing": False, "unclip_core.two": False, "late_one": True, "late_two": True, "early": False,
    }  # fmt: skip
    assert circles(house.module_graph) == [["unclip_core.one", "unclip_core.two"]]
    assert dict(house.crossings) == {
        ("unclip_core/one", "unclip_core/two"): 1, ("unclip_core/two", "unclip_core/one"): 1,
    }  # fmt: skip


def test_only_relative_imports_reach_the_own_package():
    """In ComfyUI the pack is called after its folder: an absolute name would find another package."""
    assert not offenders(lambda path: outside(path) & {"unclip", "nodes", "unclip_core", "cli", "tests"}, HOUSE.sources)


def test_no_circle_of_imports_between_modules():
    """Imports inside functions count: a circle that is put off is a circle."""
    assert circles(HOUSE.module_graph) == []


def test_no_circle_of_imports_between_rooms():
    assert circles(HOUSE.room_graph) == []


def test_triton_is_imported_by_its_kernels_alone_and_these_late():
    """It is there on few machines, and takes its time."""
    kernels = {f"unclip_core/nets/triton_group_norm{of}.py" for of in ("", "_gradients")}
    assert set(offenders(lambda path: outside(path) & {"triton"}, HOUSE.sources)) == kernels
    name = module_name(Path(min(kernels, key=len)))
    for path in HOUSE.sources:
        if path.as_posix().endswith(tuple(kernels)):
            continue
        assert not [i for i in HOUSE.imports(path) if i.inside and not i.deferred and i.target.startswith(name)]


def test_every_room_of_the_core_has_its_place():
    rooms = {room_of(path) for path in below("unclip_core")} - {"unclip_core"}
    assert rooms == {f"unclip_core/{name}" for name in MAY_IMPORT}


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_a_room_of_the_core_imports_only_downwards(room):
    allowed = {f"unclip_core/{name}" for name in MAY_IMPORT[room] | ANYWHERE}
    assert HOUSE.room_graph[f"unclip_core/{room}"] <= allowed


def test_the_nodes_know_only_what_draws_images():
    """Neither training nor measuring, and nothing of the command line."""
    assert HOUSE.room_graph["nodes"] <= {f"unclip_core/{name}" for name in NODES_MAY_IMPORT | ANYWHERE}


def test_nothing_but_its_door_imports_the_command_line():
    knowing = {room for room, known in HOUSE.room_graph.items() if "cli" in known}
    assert knowing == {"__main__"}


def test_only_the_host_knows_comfyui():
    knowing = offenders(lambda path: outside(path) & HOST_MODULES, HOUSE.sources)
    assert knowing and all(path.startswith("nodes/host/") for path in knowing)


def test_comfyui_is_not_touched_at_import():
    """It may not be there, and without a GPU driver its modules raise."""
    assert not offenders(lambda path: outside(path, deferred=False) & HOST_MODULES, HOUSE.sources)


def test_the_host_knows_no_node():
    """Of the nodes it takes what travels between them; and that knows no host."""
    known = {name for path in below("nodes/host") for name in inside(path) if not name.startswith("nodes.host")}
    assert {name for name in known if not name.startswith("unclip_core")} <= THE_HOST_MAY_KNOW
    lower = [path for path in below("nodes") if module_name(path) in THE_HOST_MAY_KNOW]
    assert len(lower) == len(THE_HOST_MAY_KNOW)
    assert not offenders(lambda path: [name for name in inside(path) if name.startswith("nodes.host")], lower)


def test_slow_packages_are_imported_late():
    assert not offenders(lambda path: outside(path, deferred=False) & SLOW, HOUSE.sources)


def test_nothing_prints_but_through_output():
    """A `print` of its own ends a finished run where the terminal cannot show a name, or the reader has gone."""

    def printing(path):
        calls = [node.func for node in HOUSE.nodes(path) if isinstance(node, ast.Call)]
        said = {ast.unparse(func) for func in calls}
        return said & {"print", "sys.stdout.write", "sys.stderr.write", "accelerator.print", "tqdm.write"}

    one_json_line_for_a_parent_process = "unclip_core/bench/speed/worker.py"
    paths = [path for path in HOUSE.sources if path.parts[0] != "tests"]
    found = offenders(printing, paths)
    assert set(found) <= {"unclip_core/output.py", one_json_line_for_a_parent_process}, found


def test_nothing_outside_a_family_asks_for_its_classes():
    """No `isinstance` or `issubclass` on a class that a family's package defines: what a family can do it registers."""
    families = {path.parts[2] for path in below("unclip_core/families") if len(path.parts) > 3}
    assert {"karlo", "native"} <= families
    classes = {
        (family, node.name)
        for family in families
        for path in below(f"unclip_core/families/{family}")
        for node in HOUSE.nodes(path)
        if isinstance(node, ast.ClassDef)
    }
    assert {family for family, _ in classes} >= {"karlo"}

    def asked(path):
        home = path.parts[2] if path in below("unclip_core/families") and len(path.parts) > 3 else None
        foreign = {name for family, name in classes if family != home}
        return foreign & classes_asked_for(HOUSE.nodes(path))

    assert not offenders(asked, HOUSE.sources)


def classes_asked_for(nodes):
    """Names of the classes that `isinstance`, `issubclass`, a `match` or a comparison of `type(x)` asks for."""
    asked = []
    for node in nodes:
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass"):
            asked += node.args[1:]
        elif isinstance(node, ast.MatchClass):
            asked.append(node.cls)
        elif isinstance(node, ast.Compare) and ast.unparse(node.left).startswith("type("):
            asked += node.comparators
    parts = [part for found in asked for part in ast.walk(found)]
    return {part.id for part in parts if isinstance(part, ast.Name)} | {
        part.attr for part in parts if isinstance(part, ast.Attribute)
    }


def test_the_reader_of_questions_finds_them():
    source = (
        "isinstance(x, (A, b.C))\nissubclass(x, D | E)\nif type(x) is F: pass\n"
        "match x:\n    case G(): pass\nprint(H)\nisinstance(I, J)\n"
    )
    assert classes_asked_for(ast.walk(ast.parse(source))) == {"A", "b", "C", "D", "E", "F", "G", "J"}


def test_the_report_names_what_it_counts(capsys, monkeypatch):
    from rooms import main

    monkeypatch.setattr("sys.argv", ["rooms.py", "--root", str(HERE)])
    main()
    printed = capsys.readouterr().out
    assert f"{len(HOUSE.sources)} files" in printed and "0 circles of modules" in printed
