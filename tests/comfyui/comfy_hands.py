"""A user at ComfyUI's page: everything here is done with mouse and keyboard, as people do it."""

from comfy_server import PLUGIN

EMPTY_SPOT = (1300, 930)  # of the window: below the nodes that a test places
SLOT_LIMIT, BUSY_LIMIT, PAUSE = 10_000, 5_000, 300  # ms
ATTEMPTS = 4

NODE_AT = "(id) => app.graph.nodes.some((node) => String(node.id) === id && !node.flags.ghost)"
LAST_NODE = "() => app.graph.nodes.length ? String(app.graph.nodes.at(-1).id) : null"
SLOT = """([id, kind, name]) => {
    const node = app.graph.nodes.find((node) => String(node.id) === id)
    return node[kind === 'in' ? 'inputs' : 'outputs'].findIndex((slot) => slot.name === name)
}"""
CLASSIC_SLOT = """([id, kind, index]) => {
    const node = app.graph.nodes.find((node) => String(node.id) === id)
    const [x, y] = node.getConnectionPos(kind === 'in', index)
    const { scale, offset } = app.canvas.ds
    const origin = app.canvas.canvas.getBoundingClientRect()
    return [origin.x + (x + offset[0]) * scale, origin.y + (y + offset[1]) * scale]
}"""
THUMBNAIL = """(name) => [...document.querySelectorAll(`[data-testid="template-workflow-${name}"] img`)].some(
    (image) => image.complete && image.naturalWidth)"""
TEMPLATES = """() => [...document.querySelectorAll('[data-testid^="template-workflow-"]')].map(
    (card) => card.dataset.testid.slice('template-workflow-'.length))"""
FOUND = """() => {
    const text = [...document.querySelectorAll('[data-testid="result-item"]')].map((e) => e.innerText).join()
    const same = text && text === window.lastFound
    window.lastFound = text
    return same
}"""
WIRES = """() => app.graph.nodes.flatMap((node) => (node.inputs ?? []).flatMap((slot) => {
    const link = slot.link == null ? null : app.graph.getLink(slot.link)
    return link ? [[String(link.origin_id), link.origin_slot, String(node.id), slot.name]] : []
}))"""


class Hands:
    """Mouse and keyboard on a `Canvas`."""

    def __init__(self, canvas):
        self.canvas, self.page = canvas, canvas.page

    def begin(self):
        """Open a blank workflow in a tab of its own: the plus beside the tabs."""
        self.canvas.begin_anew(self.page.viewport_size)

    def add(self, words, name, at):
        """Search for a node with these words, pick it by its name, carry it to a place of the window: its id."""
        self.search()
        self.page.keyboard.insert_text(words)  # all at once: it searches at every key
        found = self.page.get_by_test_id("result-item").filter(has_text=name).first
        found.click()
        found.wait_for(state="hidden")  # the box takes clicks until it has faded
        node_id = self.page.wait_for_function(LAST_NODE).json_value()
        self.page.mouse.move(*at, steps=6)
        self._until(
            lambda: self.page.mouse.click(*at),
            lambda: self.page.wait_for_function(NODE_AT, arg=node_id, timeout=BUSY_LIMIT),
            f"{name} laid down",
        )
        return node_id

    def search(self):
        """Double-click on an empty spot for the search box."""
        box = self.page.get_by_placeholder("Add a node")
        self._until(
            lambda: self.page.mouse.dblclick(*EMPTY_SPOT, delay=30),
            lambda: box.wait_for(timeout=BUSY_LIMIT),
            "search box opened",
        )

    def found(self, words):
        """Search for nodes with these words: the names of what is found, from top to bottom."""
        self.search()
        self.page.evaluate("window.lastFound = null")
        self.page.keyboard.insert_text(words)  # all at once: it searches at every key
        self.page.wait_for_function(FOUND, polling=PAUSE)
        names = [text.splitlines()[0] for text in self.page.get_by_test_id("result-item").all_inner_texts()]
        self.page.keyboard.press("Escape")
        self.page.get_by_placeholder("Add a node").wait_for(state="hidden")
        return names

    def _until(self, act, seen, wanted):
        """Do it, once more where the page was too busy to see it, until what it is for is `seen`."""
        from playwright.sync_api import TimeoutError

        for _ in range(ATTEMPTS):
            self.page.wait_for_timeout(PAUSE)
            act()
            try:
                return seen()
            except TimeoutError:
                continue
        raise AssertionError(f"no {wanted} in {ATTEMPTS} attempts")

    def slot(self, node_id, kind, name):
        """Where in the window a node's input ("in") or output ("out") of this name is."""
        index = self.page.evaluate(SLOT, [node_id, kind, name])
        assert index >= 0, f"node {node_id} has no {kind}put '{name}'"
        if not self.canvas.vue:
            return self.page.evaluate(CLASSIC_SLOT, [node_id, kind, index])
        box = self.page.locator(f"[data-slot-key='{node_id}-{kind}-{index}']").bounding_box(timeout=SLOT_LIMIT)
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def wire(self, source, output, target, entry):
        """Pull a wire from an output to an input."""
        self.page.mouse.move(*self.slot(source, "out", output))
        self.page.mouse.down()
        self.page.mouse.move(*self.slot(target, "in", entry), steps=12)
        self.page.mouse.up()

    def let_go(self, source, output, at):
        """Pull a wire from an output, let it go on empty ground: what the menu there offers, from top to bottom."""
        self.page.mouse.move(*self.slot(source, "out", output))
        self.page.mouse.down()
        self.page.mouse.move(*at, steps=12)
        self.page.mouse.up()
        menu = self.page.locator(".litecontextmenu")
        menu.wait_for()
        return menu.locator(".litemenu-entry").all_inner_texts()

    def wires(self):
        """Every wire: (node, number of its output, node, name of its input)."""
        return {tuple(wire) for wire in self.page.evaluate(WIRES)}

    def write(self, text):
        """Type over what stands in the one text field of the canvas."""
        self.page.locator("textarea:visible").click()
        self.page.keyboard.press("ControlOrMeta+A")
        self.page.keyboard.type(text)

    def press_run(self):
        """Press Run and wait for the end: (the event of its end, that event's data)."""
        self.canvas.listen()
        self.page.get_by_test_id("queue-button").click()
        return self.canvas.ending()

    def show_templates(self):
        """Open the template browser at the pack's templates, and wait for every thumbnail."""
        self.page.get_by_role("button", name="Templates").first.click()
        first = self.page.get_by_test_id("template-workflow-text_to_image")
        self._until(
            lambda: self.page.get_by_role("button", name=PLUGIN).click(),
            lambda: first.wait_for(timeout=BUSY_LIMIT),
            "templates of the pack",
        )
        for name in self.templates():
            self.page.get_by_test_id(f"template-workflow-{name}").scroll_into_view_if_needed()
            self.page.wait_for_function(THUMBNAIL, arg=name)

    def templates(self):
        """The names of the templates that the browser shows, in its order."""
        return self.page.evaluate(TEMPLATES)

    def open_template(self, name):
        """Open a template that the template browser shows."""
        before = self.page.evaluate("app.graph.id")
        card = self.page.get_by_test_id(f"template-workflow-{name}")
        card.scroll_into_view_if_needed()
        card.click()
        card.wait_for(state="hidden")
        self.page.wait_for_function("(before) => app.graph.id !== before && app.graph.nodes.length > 0", arg=before)

    def show_app(self):
        """Turn to app mode: the words of its form, from top to bottom."""
        self.page.get_by_role("button", name="Enter app mode").click()
        form = self.page.get_by_test_id("linear-widgets")
        form.wait_for()
        skip = self.page.get_by_role("button", name="Skip")  # of the tour, which comes once
        if skip.count():
            skip.click()
            skip.wait_for(state="hidden")
        return [line for line in form.inner_text().splitlines() if line]

    def show_graph(self):
        """Turn back to the graph."""
        self.page.get_by_role("button", name="Enter node graph").click()
        self.page.get_by_test_id("linear-widgets").wait_for(state="hidden")

    def run_app(self, text):
        """Type over the form's first text, press its Run, wait for the image: (the event of the end, its data)."""
        self.canvas.listen()
        self.page.get_by_test_id("linear-widgets").locator("textarea").first.fill(text)
        self.page.get_by_test_id("linear-run-button").get_by_role("button", name="Run").click()
        ending = self.canvas.ending()
        self.page.get_by_test_id("linear-image-output").locator("visible=true").first.wait_for()
        return ending
