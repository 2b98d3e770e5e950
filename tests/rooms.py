"""Who imports whom, read off the sources: `python tests/rooms.py [--root DIR]` prints the house in numbers.

A room is an entry of `unclip_core` (a folder with all below it, or a module that stands alone), `nodes`, `cli`, and
each of the root's two doors. Every import counts: those at the top of a module, those inside functions, and those for
type checkers only. A circle is a strongly connected set of two or more.
"""

import argparse
import ast
from collections import Counter
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
PACKAGES = ("unclip_core", "nodes", "cli")


@dataclass(frozen=True)
class Import:
    """One name that a source imports: a dotted module or name, from the repository's root if `inside`."""

    target: str
    inside: bool
    deferred: bool
    line: int


class _Reader(ast.NodeVisitor):
    """Collects the imports of one module, and whether each runs when the module is imported."""

    def __init__(self, package: tuple[str, ...]) -> None:
        self.package, self.deferred, self.found = package, False, []

    def visit(self, node: ast.AST) -> None:
        if not isinstance(node, ast.expr):  # in which nothing is imported
            super().visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.found += [Import(alias.name, False, self.deferred, node.lineno) for alias in node.names]

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if not node.level:
            self.found.append(Import(node.module, False, self.deferred, node.lineno))
            return
        above = self.package[: len(self.package) - node.level + 1]
        module = [*above, *(node.module.split(".") if node.module else [])]
        names = [".".join([*module, alias.name]) for alias in node.names]
        self.found += [Import(name, True, self.deferred, node.lineno) for name in names]

    def _visit_later(self, node: ast.AST) -> None:
        before, self.deferred = self.deferred, True
        self.generic_visit(node)
        self.deferred = before

    visit_FunctionDef = visit_AsyncFunctionDef = _visit_later

    def visit_If(self, node: ast.If) -> None:
        (self._visit_later if "TYPE_CHECKING" in ast.unparse(node.test) else self.generic_visit)(node)


@dataclass(frozen=True)
class House:
    """The sources of the package at `root`, tests left out."""

    root: Path = HERE

    @cached_property
    def sources(self) -> list[Path]:
        """Every source, relative to the root."""
        found = [*self.root.glob("*.py"), *(path for name in PACKAGES for path in self.root.glob(f"{name}/**/*.py"))]
        return sorted(path.relative_to(self.root) for path in found if path.name != "setup.py")

    @cached_property
    def modules(self) -> dict[str, Path]:
        """Dotted name -> source: `nodes.host` -> `nodes/host/__init__.py`."""
        return {module_name(path): path for path in self.sources}

    @cache  # noqa: B019 - a house lives as long as the process
    def tree(self, path: Path) -> ast.Module:
        """The syntax tree of one source."""
        return ast.parse((self.root / path).read_text(encoding="utf-8"))

    @cache  # noqa: B019
    def nodes(self, path: Path) -> list[ast.AST]:
        """Every node of that tree."""
        return list(ast.walk(self.tree(path)))

    @cache  # noqa: B019
    def imports(self, path: Path) -> list[Import]:
        """Every name that one source imports."""
        reader = _Reader(path.parent.parts)
        reader.visit(self.tree(path))
        return reader.found

    def module_of(self, target: str) -> str:
        """The module that an import inside the package reads: the target itself, or the one that defines the name."""
        return target if target in self.modules else target.rpartition(".")[0]

    def imported_modules(self, path: Path) -> set[str]:
        """The modules of the package that one source imports, itself left out."""
        found = {self.module_of(found.target) for found in self.imports(path) if found.inside}
        return found - {module_name(path)}

    def lines(self, path: Path) -> int:
        """How many lines a source has."""
        return len((self.root / path).read_text(encoding="utf-8").splitlines())

    @cached_property
    def module_graph(self) -> dict[str, set[str]]:
        """module -> the modules it imports."""
        return {module_name(path): self.imported_modules(path) for path in self.sources}

    @cached_property
    def crossings(self) -> Counter[tuple[str, str]]:
        """(room, other room) -> the number of import statements from the one into the other."""
        statements = {
            (path, found.line, room_of(self.modules[self.module_of(found.target)]))
            for path in self.sources
            for found in self.imports(path)
            if found.inside
        }
        pairs = Counter((room_of(path), room) for path, _, room in statements)
        return Counter({pair: count for pair, count in pairs.items() if pair[0] != pair[1]})

    @cached_property
    def room_graph(self) -> dict[str, set[str]]:
        """room -> the rooms it imports from."""
        graph: dict[str, set[str]] = {room_of(path): set() for path in self.sources}
        for importer, imported in self.crossings:
            graph[importer].add(imported)
        return graph


def module_name(path: Path) -> str:
    """The dotted name of a source: "" for the root's `__init__.py`."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(path: Path) -> str:
    """The room that a source stands in."""
    parts = path.with_suffix("").parts
    if parts[0] == "unclip_core":
        return parts[0] if parts[1] == "__init__" else "/".join(parts[:2])
    return parts[0]


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected sets of two or more (Tarjan, 1972), largest first."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            at = stack.index(node)
            found.append(sorted(stack[at:]))
            del stack[at:]

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return sorted((members for members in found if len(members) > 1), key=lambda members: (-len(members), members))


def report(house: House) -> str:
    """Files and lines a room, imports between rooms, and circles, as a table to read."""
    files = Counter(room_of(path) for path in house.sources)
    lines = Counter({room: 0 for room in files})
    for path in house.sources:
        lines[room_of(path)] += house.lines(path)
    table = [f"{'room':<32}{'files':>6}{'lines':>8}  imports from"]
    for room in sorted(files):
        known = ", ".join(sorted(house.room_graph[room])) or "nothing"
        table.append(f"{room:<32}{files[room]:>6}{lines[room]:>8}  {known}")
    statements = sum(house.crossings.values())
    return "\n".join(
        [
            *table,
            "",
            f"{len(files)} rooms, {files.total()} files, {lines.total()} lines",
            f"{len(house.crossings)} pairs of rooms of which one imports the other, in {statements} statements",
            *_lines_of_circles("modules", circles(house.module_graph)),
            *_lines_of_circles("rooms", circles(house.room_graph)),
        ]
    )


def _lines_of_circles(of_what: str, found: list[list[str]]) -> list[str]:
    return [f"{len(found)} circles of {of_what}", *(f"  {len(names)}: {', '.join(names)}" for names in found)]


def main() -> None:
    """Print the report of the tree that `--root` names, by default this one."""
    parser = argparse.ArgumentParser(description="Files and lines a room, imports between rooms, circles of imports.")
    parser.add_argument("--root", type=Path, default=HERE, help="the repository's folder (default: this one)")
    print(report(House(parser.parse_args().root.resolve())))


if __name__ == "__main__":
    main()
