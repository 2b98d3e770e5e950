"""ComfyUI for the tests of this folder: one server for all of them, and its canvas in a headless browser.

Where there is no ComfyUI, or no browser, the tests are skipped, and the end of the report says why in red.
"""

import os
import sys
from functools import cache
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from comfy_canvas import WINDOW, Canvas, NoBrowser, find_chromium, launch  # noqa: E402
from comfy_models import furnished, write_stable_diffusion  # noqa: E402
from comfy_server import ROOT, NoComfyUI, Server, find_comfyui  # noqa: E402
from not_tested import skip  # noqa: E402

WEIGHTS = ["model_index.json", "clip.safetensors", "prior.safetensors", "decoder.safetensors", "upsampler.safetensors"]
LOG_SHOWN = 6000
running = pytest.StashKey()


@pytest.fixture(scope="session")
def comfyui():
    """(folder, Python) of the ComfyUI to test in."""
    try:
        return find_comfyui()
    except NoComfyUI as reason:
        skip("ComfyUI", reason)


@pytest.fixture(scope="session")
def server(comfyui, tmp_path_factory, pytestconfig):
    """A ComfyUI server with the pack in it, for all tests."""
    missing = [name for name in WEIGHTS if not (ROOT / "unclip_core" / "bundled" / "shapes" / name).is_file()]
    if missing:
        pytest.fail(f"The bundled model is not whole: unclip_core/bundled/shapes lacks {', '.join(missing)}.")
    server = Server(*comfyui, furnished(tmp_path_factory.mktemp("comfyui")))
    pytestconfig.stash[running] = server
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def stable_diffusion(comfyui, server):
    """Makes a random checkpoint of a kind, once, and returns its name in ComfyUI."""
    return cache(lambda kind: write_stable_diffusion(comfyui, server.base, kind))


@pytest.fixture(scope="session")
def browser(comfyui):
    """A headless Chromium."""
    try:
        chromium = find_chromium()
    except NoBrowser as reason:
        skip("The canvas in a browser", reason)
    with launch(chromium) as browser:
        yield browser


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory):
    named = os.environ.get("UNCLIP_SCREENSHOTS")
    return Path(named) if named else tmp_path_factory.mktemp("screenshots")


@pytest.fixture(scope="session")
def pages(browser, server):
    """Hands out ComfyUI's page of a mode, "classic" or "vue": opened once, and again where a test has failed on it."""
    opened = {}

    def page(mode, window=WINDOW):
        if mode in opened and not opened[mode].spoiled:
            opened[mode].begin_anew(window)
        else:
            if mode in opened:
                opened.pop(mode).__exit__()
            opened[mode] = Canvas(browser, server, vue=mode == "vue", window=window).__enter__()
        return opened[mode]

    yield page
    for canvas in opened.values():
        canvas.__exit__()


@pytest.fixture(scope="module", params=["classic", "vue"])
def canvas(request, pages):
    """ComfyUI's page, once with the canvas' own nodes and once with those that are drawn by Vue."""
    return pages(request.param)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Show the end of the server's log with a failure, and keep an image of the page, which no other file gets then."""
    report = (yield).get_result()
    given = getattr(item, "funcargs", {})
    if report.failed and isinstance(canvas := given.get("canvas"), Canvas):
        canvas.spoiled = True
        if "screenshots" in given:
            canvas.keep_failed(given["screenshots"] / f"{item.name}-failed.png")
    server = item.config.stash.get(running, None)
    if report.failed and server is not None and item.path.parent == Path(__file__).parent:
        report.sections.append(("ComfyUI's log", server.log(LOG_SHOWN)))
