"""ComfyUI's page in a headless browser: opens it offline, loads workflows, queues them, takes images."""

import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path

WINDOW = {"width": 1600, "height": 1000}
SETTINGS = {
    "Comfy.TutorialCompleted": True,
    "Comfy.Validation.Workflows": True,
    "Comfy.Minimap.Visible": False,
    "Comfy.Execution.PreviewMethod": "auto",
}
STOCK_TEXT = {"LiteGraph.Canvas.MinFontSizeForLOD": 8}  # px: ComfyUI's own
EVERY_TEXT = {"LiteGraph.Canvas.MinFontSizeForLOD": 0}  # the classic canvas leaves small text out otherwise
PREVIEWING = {"UnclipPriorSample", "UnclipDecoderSample", "UnclipUpscale", "UnclipInpaint", "UnclipOutpaint",
              "UnclipClipOptimise", "UnclipDenoisingFilm", "UnclipDdimInversion", "KSampler"}  # fmt: skip
PREVIEW_SIDE = 512  # px, as the nodes send
SPEAKING = {*PREVIEWING - {"KSampler"}, "UnclipTextEncode", "UnclipTextEncodeLines", "UnclipDescribe", "UnclipRerank",
            "UnclipEmbeddingSimilarity", "UnclipEmbeddingPad", "UnclipPcaFit", "UnclipSaveEmbedding",
            "UnclipLoadEmbedding", "UnclipSavePca", "UnclipToClipVision", "UnclipFromClipVision", "UnclipDepthHint",
            "UnclipStockTextEncode", "UnclipStockClip"}  # fmt: skip
WORDS = [f"line {number} of what a node says" for number in range(8)]  # more than a node shows at once
ALONE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"  # catching requests would turn caching off
LOAD_LIMIT = 300_000  # ms
RUN_LIMIT = 240_000
STILL = [250, 15]  # the view glides to its place; it has come to rest once all is the same for so many ms and frames

READY = "window.app?.vueAppReady && window.app?.extensionManager"
LOAD = "async ([graph, name]) => { await app.loadGraphData(graph, true, true, name, { openSource: 'template' }) }"
# A run that began before is not meant: another test's, that goes on behind it on the same page.
LISTEN = """() => {
    window.ending = null
    if (!window.started) {
        app.api.addEventListener('execution_start', ({ detail }) => window.started.add(detail.prompt_id))
        for (const name of ['execution_success', 'execution_error', 'execution_interrupted'])
            app.api.addEventListener(name, (event) => {
                if (window.started.has(event.detail.prompt_id)) window.ending ??= [name, event.detail]
            })
    }
    window.started = new Set()
}"""
QUEUE = """async () => {
    if (!(await app.queuePrompt(0, 1))) window.ending = ['refused', app.lastNodeErrors ?? null]
}"""
# Tabs make the page slower, and are kept for when it is loaded anew.
CLOSE_OTHERS = """async () => {
    const { openWorkflows, activeWorkflow, closeWorkflow } = app.extensionManager.workflow
    for (const workflow of [...openWorkflows]) if (workflow !== activeWorkflow) await closeWorkflow(workflow)
}"""
FIT = "app.extensionManager.command.execute('Comfy.Canvas.FitView')"
REST = """([ms, frames]) => new Promise((rested) => {
    const heights = () => [...document.querySelectorAll('[data-node-id]')].map((node) => node.offsetHeight)
    const nodes = () => app.graph.nodes.map(({ pos, size }) => [...pos, ...size])
    const view = () => JSON.stringify([app.canvas.ds.scale, ...app.canvas.ds.offset, nodes(), heights()])
    let seen, since, drawn
    const look = () => {
        if (view() !== seen) [seen, since, drawn] = [view(), performance.now(), 0]
        else drawn += 1
        if (drawn >= frames && performance.now() - since >= ms) rested()
        else requestAnimationFrame(look)
    }
    look()
})"""
COMPLAINTS = """() => [
    ...app.graph.nodes.filter((node) => node.has_errors).map((node) => `${node.type} has errors`),
    ...app.graph.nodes.filter((node) => !LiteGraph.registered_node_types[node.type]).map((node) => `no ${node.type}`),
    ...[...document.querySelectorAll('.p-toast-message, .p-dialog, [role=alertdialog]')].map((e) => e.innerText),
]"""
# The classic canvas measures nodes as it begins to draw, and they grow within a draw: a box is that of before.
NODES = """() => app.graph.nodes.map((node) => {
    node.updateArea(app.canvas.ctx)
    const [box, size, needs] = [node.boundingRect, node.size, node.computeSize()].map((each) => [...each])
    return { id: String(node.id), type: node.type, box, size, needs }
})"""
VUE_NODES = """() => {
    const { scale, offset } = app.canvas.ds
    const origin = app.canvas.canvas.getBoundingClientRect()
    return [...document.querySelectorAll('[data-node-id]')].map((element) => {
        const { x, y, width, height } = element.getBoundingClientRect()
        const corner = [(x - origin.x) / scale - offset[0], (y - origin.y) / scale - offset[1]]
        return { id: element.dataset.nodeId, box: [...corner, width / scale, height / scale] }
    })
}"""

PREVIEW = """async ([types, side]) => {
    const paper = new OffscreenCanvas(side, side)
    paper.getContext('2d').fillRect(0, 0, side, side)
    const blob = await paper.convertToBlob({ type: 'image/jpeg' })
    window.previewed = app.graph.nodes.filter((node) => types.includes(node.type)).map((node) => String(node.id))
    for (const id of window.previewed) {
        const names = { nodeId: id, displayNodeId: id, parentNodeId: id, realNodeId: id, jobId: 'preview' }
        app.api.dispatchCustomEvent('executing', id)
        app.api.dispatchCustomEvent('b_preview_with_metadata', { blob, ...names })
    }
    app.api.dispatchCustomEvent('executing', null)
}"""
PREVIEWED = {
    True: """() => window.previewed.every((id) => [...document.querySelectorAll(`[data-node-id="${id}"] img`)].some(
        (image) => image.complete && image.naturalWidth))""",
    False: """() => {
        app.canvas.draw(true, true)
        return window.previewed.every((id) => {
            const node = app.graph.nodes.find((node) => String(node.id) === id)
            return node.widgets.some((widget) => widget.name === '$$canvas-image-preview')
        })
    }""",
}
SPEAK = """([types, notes]) => {
    for (const node of app.graph.nodes.filter((node) => types.includes(node.type))) node.onExecuted({ notes })
    app.canvas.draw(true, true)
}"""
KEEP_PREVIEWED = """() => {
    window.seen = new Set()
    app.api.addEventListener('b_preview_with_metadata', ({ detail }) => window.seen.add(detail.displayNodeId))
}"""
PLACED = """([x, y, width, height]) => {
    const { scale, offset } = app.canvas.ds
    const { left, top } = app.canvas.canvas.getBoundingClientRect()
    const at = (x, y) => [left + (x + offset[0]) * scale, top + (y + offset[1]) * scale]
    return [...at(x, y), ...at(x + width, y + height)]
}"""
ZOOM = "[app.canvas.ds.scale, app.canvas.low_quality]"
TITLE_MARGIN = 10  # px beside a group's title: ComfyUI writes it 4 px from the frame
TITLES = """([titles, size, margin]) => {
    const pen = document.createElement('canvas').getContext('2d')
    pen.font = `${size}px ${LiteGraph.GROUP_FONT}`
    return titles.map((title) => Math.ceil(pen.measureText(title).width) + margin)
}"""
HIDDEN = """() => Object.fromEntries(app.graph.nodes.filter((node) => node.type === 'MarkdownNote').map((node) => {
    const text = node.widgets[0].element?.querySelector('.tiptap')
    return [String(node.id), text ? text.scrollHeight - text.clientHeight : 0]
}))"""

CLIPPED = """() => {
    const shown = (element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true })
    const clipped = (e) => e.scrollHeight > e.clientHeight + 1 || e.scrollWidth > e.clientWidth + 1
    const texts = 'textarea, .tiptap, .comfy-markdown-content, [data-testid="node-title"] .truncate'
    return [...document.querySelectorAll(texts)].filter((element) => shown(element) && clipped(element))
        .map((element) => element.value ?? element.innerText)
}"""

# node -> the texts that the classic canvas cuts, or leaves out, where the node is too narrow for them.
CUT = """const labelled = ['combo', 'number', 'toggle', 'text']
const cut = () => {
    const drawn = new Map()
    const { fillText } = CanvasRenderingContext2D.prototype
    const { drawNode } = app.canvas
    let texts = null
    app.canvas.drawNode = function (node, ...given) {
        drawn.set(node, (texts = []))
        drawNode.call(this, node, ...given)
        texts = null
    }
    CanvasRenderingContext2D.prototype.fillText = function (text, ...given) {
        texts?.push(text)
        fillText.call(this, text, ...given)
    }
    app.canvas.draw(true, true)
    CanvasRenderingContext2D.prototype.fillText = fillText
    delete app.canvas.drawNode
    return Object.fromEntries([...drawn].flatMap(([node, texts]) => {
        const shown = (node.widgets ?? []).filter((widget) => labelled.includes(widget.type) && !widget.hidden)
        const missing = shown.map(({ label, name }) => label ?? name).filter((label) => !texts.includes(label))
        const short = [...missing, ...texts.filter((text) => text.endsWith('...'))]
        return short.length ? [[String(node.id), short]] : []
    }))
}"""
CUT_TEXTS = f"() => {{ {CUT}; return cut() }}"
WIDEN = f"""(step) => {{
    {CUT}
    const widths = {{}}
    for (let found = cut(); Object.keys(found).length; found = cut()) {{
        for (const node of app.graph.nodes.filter(({{ id }}) => found[id])) {{
            node.setSize([node.size[0] + step, node.size[1]])
            widths[node.id] = node.size[0]
        }}
    }}
    return widths
}}"""
WIDER = 4  # in the graph's unit

SHOWN = {
    True: "[...document.querySelectorAll('[data-node-id] img')].some((image) => image.naturalWidth)",
    False: "app.graph.nodes.some((node) => node.imgs?.some((image) => image.naturalWidth))",
}


class NoBrowser(Exception):
    """There is no browser to test with; the message says what is missing."""


def find_chromium():
    """The browser: of $CHROMIUM_PATH, or where systems put it."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError as error:
        raise NoBrowser("this Python lacks playwright (pip install playwright)") from error
    named = os.environ.get("CHROMIUM_PATH")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    places = [named] if named else ["/usr/bin/chromium", *map(shutil.which, names)]
    found = next((place for place in places if place and Path(place).is_file()), None)
    if found is None:
        raise NoBrowser(f"there is no {named or 'Chromium'}; set CHROMIUM_PATH to the browser's file")
    return found


@contextmanager
def launch(chromium):
    """The browser, started without a proxy; it knows of no other machine than this one."""
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server", ALONE]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


class Canvas:
    """ComfyUI's page in a window of a usual size.

    `settings` of the page are set beside ours; they stay for the pages that the server shows afterwards.
    """

    def __init__(self, browser, server, vue, language="en", window=WINDOW, settings=None):
        self.vue, self.server = vue, server
        chosen = {"Comfy.VueNodes.Enabled": vue, "Comfy.Locale": language}
        self.settings = SETTINGS | chosen | STOCK_TEXT | (settings or {})
        self.errors = []
        self.spoiled = False  # by a test that failed: nobody knows what is open
        self._context = browser.new_context(viewport=window)
        self.page = self._context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def __enter__(self):
        self._set()
        self.page.goto(self.server.url, timeout=LOAD_LIMIT)
        self.wait_until_ready()
        self.page.wait_for_function("app.graph.nodes.length", timeout=LOAD_LIMIT)  # ComfyUI's own workflow comes late
        return self

    def __exit__(self, *_):
        self._context.close()

    def _set(self):
        status, _ = self.server.post("/api/settings", self.settings)
        assert status == 200

    def begin_anew(self, window=WINDOW):
        """Open a blank workflow in a window of this size, where other tests have left what they did."""
        self._set()  # for when the page is loaded anew
        self.errors.clear()
        self.page.set_viewport_size(window)
        self.page.evaluate("app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
        self.page.wait_for_function("app.graph.nodes.length === 0")
        self.page.evaluate("app.canvas.ds.reset()")  # a blank workflow is seen from where the last one was
        self.page.evaluate(CLOSE_OTHERS)

    def wait_until_ready(self):
        """Return once the page is up; after a reload too."""
        self.page.wait_for_function(READY, timeout=LOAD_LIMIT)

    def refresh(self):
        """Load the list of nodes, and of what they can load, anew."""
        self.page.evaluate("app.refreshComboInNodes().then(() => app.extensionManager.toast.removeAll())")

    def load(self, workflow, name):
        """Open a UI workflow as the template browser does."""
        self.page.evaluate(LOAD, [workflow, name])
        self.come_to_rest()

    def fit(self):
        """Bring all of the workflow into view."""
        self.page.evaluate(FIT)
        self.come_to_rest()

    def come_to_rest(self):
        """Wait until the view stays where it is, and nodes keep their sizes, which previews and words change.

        By frames, too: on a busy machine the glide takes its steps late.
        """
        self.page.evaluate(REST, STILL)

    def complaints(self):
        """What the canvas holds against the workflow: node errors, unknown types, messages, dialogs."""
        return self.page.evaluate(COMPLAINTS) + self.errors

    def prompt(self):
        """The workflow on the canvas in the API format."""
        return self.page.evaluate("async () => (await app.graphToPrompt()).output")

    def run(self):
        """Queue what is on the canvas: (the event of its end, that event's data)."""
        self.listen()
        self.page.evaluate(QUEUE)
        return self.ending()

    def listen(self):
        """From now on, keep how a prompt ends."""
        self.page.evaluate(LISTEN)

    def ending(self):
        """Wait for the end of the prompt queued since `listen`: (the event of its end, that event's data)."""
        self.page.wait_for_function("window.ending", timeout=RUN_LIMIT)
        return self.page.evaluate("window.ending")

    def wait_for_image(self):
        """Return once a node shows an image."""
        self.page.wait_for_function(SHOWN[self.vue], timeout=LOAD_LIMIT)

    def nodes(self):
        """Each node's id, type, box `[x, y, width, height]` with its title, size, and the size that it needs."""
        return self.page.evaluate(NODES)

    def boxes(self):
        """Each node's box as it is drawn, its title included: `id -> [x, y, width, height]` in the graph's unit."""
        drawn = self.page.evaluate(VUE_NODES) if self.vue else self.nodes()
        return {node["id"]: node["box"] for node in drawn}

    def title_widths(self, titles, size):
        """The room that titles of groups take in a font of this size, in the graph's unit."""
        return self.page.evaluate(TITLES, [titles, size, TITLE_MARGIN])

    def zoom(self):
        """(pixels of the window for a unit of the graph, whether the canvas leaves texts out at this zoom)."""
        return self.page.evaluate(ZOOM)

    def show_previews(self):
        """Let every node that can show a live preview get one, and wait until it is there."""
        self.page.evaluate(PREVIEW, [sorted(PREVIEWING), PREVIEW_SIDE])
        self.page.wait_for_function(PREVIEWED[self.vue], polling=100)
        self.come_to_rest()

    def keep_previewed(self):
        """From now on, keep which nodes get a live preview of the server."""
        self.page.evaluate(KEEP_PREVIEWED)

    def previewed(self):
        """The ids of the nodes that got a live preview since `keep_previewed`."""
        return self.page.evaluate("[...window.seen]")

    def in_window(self, box):
        """Where in the window a box of the graph is: left, top, right, bottom."""
        return self.page.evaluate(PLACED, box)

    def show_words(self):
        """Let every node that can say something of a run say as much as it shows at once."""
        self.page.evaluate(SPEAK, [sorted(SPEAKING), WORDS])
        self.come_to_rest()

    def hidden_heights(self):
        """node -> how much of a note its box does not show, in the graph's unit; Vue's notes grow by themselves."""
        return self.page.evaluate(HIDDEN)

    def clipped_texts(self):
        """Texts of fields, notes and titles of which their box shows a part only."""
        return self.page.evaluate(CLIPPED)

    def cut_texts(self):
        """node -> titles, labels and values that the classic canvas cuts, as it shows them."""
        return self.page.evaluate(CUT_TEXTS)

    def widen(self):
        """Make nodes so wide that the classic canvas cuts none of their texts: node -> its new width."""
        return self.page.evaluate(WIDEN, WIDER)

    def screenshot(self, path):
        """Save what the page shows, where $UNCLIP_SCREENSHOTS asks for it: it takes a tenth of a second."""
        if os.environ.get("UNCLIP_SCREENSHOTS"):
            path.parent.mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=path)

    def keep_failed(self, path):
        """Save what the page shows after a failure, unless it is the page that has failed."""
        from playwright.sync_api import Error

        with suppress(Error):
            self.page.screenshot(path=path)
