"""Packages: fetched from a registry on this machine, checked by their hashes, and read."""

import base64
import hashlib
import io
import json
import os
import tarfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from unclip.unclip_core.parsing import MalformedInput
from unclip.unclip_core.recipes.things import sources
from unclip.unclip_core.recipes.things.art import read_art
from unclip.unclip_core.recipes.things.sources import (
    PACKAGES,
    Package,
    WrongPackage,
    configured_registry,
    fetch,
)
from unclip.unclip_core.recipes.things.vocabulary import LANGUAGES, STYLES, concepts

DATA = b"a package"
INTEGRITY = "sha512-" + base64.b64encode(hashlib.sha512(DATA).digest()).decode()
PACKAGE = Package("@some/art", "1.2.3", INTEGRITY, "MIT", "Someone")


@pytest.fixture
def registry():
    """Address of a registry that has the package, and what it was asked for."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            self.send_response(200 if self.path == "/npm/@some/art/-/art-1.2.3.tgz" else 404)
            self.end_headers()
            self.wfile.write(DATA)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/npm/", asked
    server.shutdown()
    server.server_close()


def test_a_package_is_fetched_once_and_checked(tmp_path, registry):
    address, asked = registry
    fetch(tmp_path, {"art": PACKAGE}, address)
    fetch(tmp_path, {"art": PACKAGE}, address)
    assert asked == ["/npm/@some/art/-/art-1.2.3.tgz"]
    assert (tmp_path / "some-art-1.2.3.tgz").read_bytes() == DATA


def test_where_all_files_lie_already_no_registry_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "configured_registry", lambda *_: pytest.fail("nothing is to be fetched"))
    (tmp_path / PACKAGE.file).write_bytes(DATA)
    sources.fetch(tmp_path, {"art": PACKAGE})


def test_bytes_of_another_hash_are_refused_and_not_kept(tmp_path, registry):
    other = replace(PACKAGE, integrity=INTEGRITY[:-4] + "AA==")
    with pytest.raises(WrongPackage, match=r"@some/art 1\.2\.3.*sha512"):
        fetch(tmp_path, {"art": other}, registry[0])
    assert list(tmp_path.iterdir()) == []
    (tmp_path / PACKAGE.file).write_bytes(b"damaged")
    with pytest.raises(WrongPackage, match="some-art"):
        fetch(tmp_path, {"art": PACKAGE}, registry[0])


def test_a_registry_without_the_package_is_named(tmp_path, registry):
    with pytest.raises(OSError, match=r"art-9\.tgz.*404"):
        fetch(tmp_path, {"art": replace(PACKAGE, version="9")}, registry[0])


def test_the_registry_is_npms(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    second.write_text('# a comment\ncafile=/x\n@some:registry=https://other/\nregistry = "https://mine/npm/"\n')
    assert configured_registry({"NPM_CONFIG_REGISTRY": "https://env/"}, [second]) == "https://env/"
    assert configured_registry({"HOME": "/"}, [first, second]) == "https://mine/npm/"
    with pytest.raises(ValueError, match="No npm registry is set up"):
        configured_registry({}, [first])
    assert configured_registry({}, [first], lambda: "https://asked/") == "https://asked/"


@pytest.mark.skipif(os.name == "nt", reason="a shell script stands in for npm")
@pytest.mark.parametrize(
    ("script", "found"),
    [("echo https://asked/npm/", "https://asked/npm/"), ("echo undefined", None), ("echo https://x/; exit 1", None)],
)
def test_npm_is_asked_where_nothing_names_a_registry(tmp_path, monkeypatch, script, found):
    (tmp_path / "npm").write_text(f'#!/bin/sh\n[ "$*" = "config get registry" ] || exit 2\n{script}\n')
    (tmp_path / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sources.npm_registry() == found
    (tmp_path / "npm").unlink()
    assert sources.npm_registry() is None


def test_every_package_is_pinned():
    for package in PACKAGES.values():
        algorithm, _, digest = package.integrity.partition("-")
        assert algorithm == "sha512" and len(base64.b64decode(digest)) == 64
        assert package.version.count(".") == 2 and package.licence and package.credit


def written(folder, key, members):
    with tarfile.open(folder / PACKAGES[key].file, "w:gz") as tar:
        for name, content in members.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def icons(**bodies):
    return {"width": 36, "height": 36, "icons": {name: {"body": body} for name, body in bodies.items()}}


def small_packages(folder):
    """Packages with drawings of the first two things; the second, which has a joiner, lacks a 3D picture of its own."""
    one, two = concepts()[0], next(code for code in concepts() if "200d" in code)
    chars = {one: "smile", two: "joined"}
    known = icons(smile="<a/>", joined="<b/>")
    for key in ("shaded", "cartoon", "flat"):
        written(folder, key, {"chars.json": chars, "icons.json": known})
    written(folder, "3d gaps", {"chars.json": {}, "icons.json": known})
    aliased = icons(smile="<a/>", other="<c/>") | {"aliases": {"joined": {"parent": "other"}}}
    written(folder, "retro", {"chars.json": {}, "icons.json": aliased})
    written(folder, "3d", {f"assets/{one}.webp": b"WEBP", f"assets/{two}-fe0f.webp": b"WEBP2", "package.json": {}})
    for key, part in (("names", "annotations"), ("derived names", "annotationsDerived")):
        characters = ["".join(chr(int(p, 16)) for p in code.split("-")) for code in concepts()]
        entries = {c: {"default": ["x", f"{part} {n}"], "tts": ["x"]} for n, c in enumerate(characters)}
        held = {part: {"annotations": entries}}
        written(folder, key, {f"{part}/{language}/annotations.json": held for language in LANGUAGES})
    return concepts().index(one), concepts().index(two)


def test_drawings_are_found_by_code_point_by_name_by_alias_and_without_selectors(tmp_path):
    one, two = small_packages(tmp_path)
    art = read_art(tmp_path)
    threes = {concept: drawing for (style, concept), drawing in art.drawings.items() if STYLES[style] == "3d"}
    assert threes == {one: b"WEBP", two: b"WEBP2"}
    retro = {concept: drawing for (style, concept), drawing in art.drawings.items() if STYLES[style] == "retro"}
    assert "<a/>" in retro[one] and "<c/>" in retro[two] and 'viewBox="0 0 36 36"' in retro[one]
    assert len(art.drawings) == 2 * len(STYLES)
    assert art.names["tr"][0] == ("x", ("annotations 0",))


def test_a_package_without_a_member_is_named(tmp_path):
    small_packages(tmp_path)
    written(tmp_path, "flat", {"chars.json": {}})
    with pytest.raises(MalformedInput, match=r"fluent-emoji-flat.*icons\.json"):
        read_art(tmp_path)
