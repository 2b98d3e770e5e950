"""What the canvas' scripts decide, in Node.js with stand-ins for ComfyUI's page; `tests/comfyui` has the real one."""

import json
import math
import shutil
import subprocess
from pathlib import Path

import pytest
from not_tested import skip

import unclip

ROOT = Path(unclip.__file__).parent

PAGE = """
export const app = {
  api: Object.assign(new EventTarget(), { async fetchApi() {}, async interrupt() {}, async deleteItem() {} }),
  registerExtension: (extension) => app.extensions.push(extension), extensions: [], nodes: [],
  toasts: [],
  extensionManager: { toast: { add: ({ detail }) => app.toasts.push(detail) }, setting: { get: () => 'auto' } },
  rootGraph: { get nodes() { return app.nodes }, getNodeById: (id) => app.nodes.find((node) => node.id === id) }
}
"""
STORES = """
globalThis.showing = (stores) => {
  const $pinia = { _s: new Map(Object.entries(stores)) }
  globalThis.document = { getElementById: () => ({ __vue_app__: { config: { globalProperties: { $pinia } } } }) }
}
showing({})
"""


@pytest.fixture(scope="module")
def in_page(tmp_path_factory):
    """Runs a script that has `app`, and the pack's modules by `load(name)`; returns what it passes to `tell`."""
    node = shutil.which("node")
    if node is None:
        skip("The canvas' scripts alone", "there is no Node.js")
    root = tmp_path_factory.mktemp("page")
    scripts = root / "extensions" / "unclip" / "js"
    shutil.copytree(ROOT / "nodes" / "web" / "js", scripts)
    (root / "scripts").mkdir()
    (root / "scripts" / "app.js").write_text(PAGE, encoding="utf-8")
    (root / "package.json").write_text('{"type": "module"}', encoding="utf-8")

    def run(script):
        before = (
            f"{STORES}\nimport {{ app }} from './scripts/app.js'\n"
            "const load = (name) => import(`./extensions/unclip/js/${name}.js`)\n"
            "const tell = (value) => console.log(JSON.stringify(value))\n"
        )
        (root / "run.js").write_text(before + script, encoding="utf-8")
        done = subprocess.run([node, "run.js"], cwd=root, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


# ---- drafts ----


def drafted(in_page, nodes):
    """The steps of a draft, node by node."""
    prompt = json.dumps(dict(enumerate({"class_type": kind, "inputs": inputs} for kind, inputs in nodes)))
    return in_page(f"""
        const {{ draftOf }} = await load('draft')
        const prompt = {prompt}
        const draft = draftOf(prompt, Object.keys(prompt)) ?? prompt
        tell(Object.values(draft).map(({{ inputs }}) => inputs.steps))
    """)


LINK = ["9", 0]
STRENGTHS = [hundredths / 100 for hundredths in range(1, 101)]


@pytest.mark.parametrize(("kind", "start"), [("UnclipDecoderSample", "image"), ("UnclipPriorSample", "embedding")])
def test_a_draft_from_a_start_takes_so_many_steps_that_one_is_left(in_page, kind, start):
    steps = drafted(in_page, [(kind, {"steps": 0, "strength": each, start: LINK}) for each in STRENGTHS])
    assert all(int(count * each) >= 1 for count, each in zip(steps, STRENGTHS, strict=True))
    assert steps == [max(3, math.ceil(round(1 / each, 9))) for each in STRENGTHS]


def test_a_draft_is_three_steps_where_nothing_is_started_from_and_never_more_than_the_run(in_page):
    decoder, prior = "UnclipDecoderSample", "UnclipPriorSample"
    cases = [
        ((decoder, {"steps": 8, "strength": 0.1, "embedding": LINK}), 3),
        ((prior, {"steps": 0, "strength": 0.1}), 3),
        ((decoder, {"steps": 8, "strength": 0.3, "image": LINK}), 4),
        ((decoder, {"steps": 4, "strength": 0.1, "image": LINK}), 4),
        ((decoder, {"steps": 2}), 2),
        ((decoder, {"steps": 25, "strength": LINK, "image": LINK}), 25),
        ((prior, {"steps": 25, "strength": LINK}), 3),
    ]
    assert drafted(in_page, [case for case, _ in cases]) == [steps for _, steps in cases]


# ---- what follows a draft ----


def runs_below(in_page, ends, before="", told="[steps, heard, app.toasts]"):
    """The runs of a pad's change, of which the n-th ends so: [steps], the ends that the page hears of, the toasts.

    Or what else is `told`, by an expression, where a script `before` them has prepared for it.
    """
    return in_page(f"""
        const ends = {json.dumps(ends)}
        globalThis.window = {{ LiteGraph: {{ registered_node_types: {{
          PreviewImage: {{ nodeData: {{ output_node: true }} }} }} }} }}
        const pad = {{ id: 1 }}
        app.nodes = [pad]
        const output = {{
          1: {{ class_type: 'UnclipEmbeddingPad', inputs: {{}} }},
          2: {{ class_type: 'UnclipDecoderSample', inputs: {{ embedding: ['1', 0], steps: 8 }} }},
          3: {{ class_type: 'PreviewImage', inputs: {{ images: ['2', 0] }} }}
        }}
        app.graphToPrompt = async () => ({{ output }})
        const steps = [], heard = []
        app.api.queuePrompt = async (number, prompt) => {{
          const id = `run-${{steps.length}}`, how = ends[steps.length]
          steps.push(prompt.output[2].inputs.steps)
          if (how === 'refused') throw new Error('refused')
          const event = () => new CustomEvent(`execution_${{how}}`, {{ detail: {{ prompt_id: id }}, cancelable: true }})
          setTimeout(() => app.api.dispatchEvent(event()), 5)
          return {{ prompt_id: id }}
        }}
        const {{ runBelow }} = await load('run_below')
        for (const how of ['success', 'error', 'interrupted']) {{
          app.api.addEventListener(`execution_${{how}}`, ({{ detail }}) => heard.push([detail.prompt_id, how]))
        }}
        for (const extension of app.extensions) extension.setup?.()
        {before}
        await runBelow(pad)
        tell({told})
    """)


def test_after_a_draft_all_of_it_runs(in_page):
    assert runs_below(in_page, ["success"] * 2) == [[3, 8], [["run-0", "success"], ["run-1", "success"]], []]


def test_after_a_draft_that_failed_all_of_it_runs_and_tells_the_error_once(in_page):
    assert runs_below(in_page, ["error", "error"]) == [[3, 8], [["run-1", "error"]], []]
    assert runs_below(in_page, ["error", "success"]) == [[3, 8], [["run-1", "success"]], []]
    assert runs_below(in_page, ["refused", "refused"]) == [[3, 8], [], ["refused"]]


def test_after_a_draft_that_was_stopped_nothing_runs(in_page):
    assert runs_below(in_page, ["interrupted"]) == [[3], [["run-0", "interrupted"]], []]


def test_a_run_belongs_to_the_workflow_that_was_open_when_it_was_made(in_page):
    """By the page's own record of runs, by which it keeps what they give; then another is opened."""
    kept = runs_below(
        in_page,
        ["success"] * 2,
        """
        const here = { path: 'here' }, jobs = [], opened = { activeWorkflow: here }
        showing({ workflow: opened, execution: { storeJob: (job) => jobs.push(job) } })
        const made = app.graphToPrompt
        app.graphToPrompt = async () => { opened.activeWorkflow = { path: 'elsewhere' }; return made() }
    """,
        "jobs.map(({ id, nodes, promptOutput, workflow }) => [id, nodes, promptOutput[2].inputs.steps, workflow.path])",
    )
    assert kept == [["run-0", ["1", "2", "3"], 3, "here"], ["run-1", ["1", "2", "3"], 8, "here"]]


def test_what_the_server_holds_against_a_run_is_told(in_page):
    """The message of ComfyUI's PromptExecutionError names no node and no reason."""
    refused = """
        const error = Object.assign(new Error('Prompt execution failed'), { response: { node_errors: {} } })
        error.toString = () => 'UnclipDecoderSample: value not in list'
        app.api.queuePrompt = async () => { throw error }
    """
    assert runs_below(in_page, [], refused)[2] == ["UnclipDecoderSample: value not in list"]


def test_a_dynamic_prompt_is_drawn_once_for_all_runs_of_a_hand_and_anew_by_run_or_for_another_text(in_page):
    """ComfyUI draws whenever it makes a prompt; here the n-th draw is "n"."""
    rolling = """
        const text = { name: 'text', dynamicPrompts: true, value: 'a {red|blue} circle' }
        const fixed = { name: 'text', dynamicPrompts: true, value: 'a circle' }
        app.nodes.push({ id: 4, widgets: [text] }, { id: 5, widgets: [fixed] })
        let draws = 0
        const texts = [], queue = app.api.queuePrompt
        app.graphToPrompt = async () => {
          draws += 1
          const encode = (drawn) => ({ class_type: 'UnclipTextEncode', inputs: { text: drawn } })
          return { output: { ...output, 4: encode(`${draws}`), 5: encode(`${draws}`) } }
        }
        app.api.queuePrompt = (number, prompt) => {
          texts.push([prompt.output[4].inputs.text, prompt.output[5].inputs.text].join(' '))
          return queue(number, prompt)
        }
        await runBelow(pad)
        await runBelow(pad)
        text.value = 'a {green|yellow} circle'
        await runBelow(pad)
        app.api.dispatchEvent(new CustomEvent('promptQueued'))
    """
    drawn = runs_below(in_page, ["success"] * 8, rolling, "texts")
    assert drawn == ["1 1", "1 1", "1 2", "1 2", "3 3", "3 3", "4 4", "4 4"]


# ---- what undo takes back ----


def test_undo_takes_back_a_click_in_pick_and_nothing_where_the_page_keeps_no_changes(in_page):
    """The page captures what has changed between the two calls that it is told by."""
    script = """
        const heard = [], widget = { name: 'indices', value: '0' }
        const tracker = { beforeChange: () => heard.push(widget.value), afterChange: () => heard.push(widget.value) }
        showing(%s ? { workflow: { activeWorkflow: { changeTracker: tracker } } } : {})
        const tag = () => ({ style: {}, children: [], replaceChildren(...given) { this.children = given }, append() {},
          addEventListener(name, act) { this[name] = act }, setAttribute() {} })
        document.createElement = tag
        await load('pick')
        const [{ nodeCreated }] = app.extensions
        const node = { comfyClass: 'UnclipPick', widgets: [widget], size: [200, 200], addDOMWidget: () => ({}),
          computeSize: () => [200, 200], setSize() {} }
        nodeCreated(node)
        node.unclipPicker.show([{ label: 'a' }, { label: 'b' }])
        node.unclipPicker.grid.children[1].click({})
        node.unclipPicker.grid.children[1].click({ ctrlKey: true })
        tell([widget.value, heard])
    """
    assert in_page(script % "true") == ["1", ["0", "1"]]  # the second click would leave none
    assert in_page(script % "false") == ["1", []]


# ---- whose words a run takes away ----

WORDED = """
    showing(%s)
    const made = (id, comfyClass) => ({ id, comfyClass, widgets: [{ name: 'unclip_words' }],
      removeWidget(widget) { this.widgets = this.widgets.filter((each) => each !== widget) } })
    const nodes = app.nodes = [made('1', 'UnclipDecoderSample'), made('2', 'KSampler')]
    await load('words')
    for (const id of ['1', '2', '3', null]) app.api.dispatchEvent(new CustomEvent('executing', { detail: id }))
    tell(nodes.map(({ widgets }) => widgets.length))
"""
HERE, ELSEWHERE = ({"path": f"workflows/{name}.json"} for name in ("here", "elsewhere"))


def of_run(workflow, opened=HERE):
    return {
        "execution": {"activeJobId": "run", "queuedJobs": {"run": {"workflow": workflow} if workflow else {}}},
        "workflow": {"activeWorkflow": opened},
    }


@pytest.mark.parametrize(
    ("stores", "left"),
    [
        ({}, [0, 1]), (of_run(HERE), [0, 1]), (of_run(ELSEWHERE), [1, 1]), (of_run(None), [0, 1]),
        (of_run(ELSEWHERE, None), [0, 1]), ({"execution": {"activeJobId": None, "queuedJobs": {}}}, [0, 1]),
    ],
    ids=["no stores", "here", "elsewhere", "unknown", "nothing open", "no run"],
)  # fmt: skip
def test_a_run_takes_the_words_of_our_nodes_in_its_own_workflow(in_page, stores, left):
    assert in_page(WORDED % json.dumps(stores)) == left


@pytest.mark.parametrize(("workflow", "heard"), [(HERE, ["stock", "ours"]), (ELSEWHERE, ["stock"])])
def test_what_a_run_gives_is_told_of_the_nodes_in_its_own_workflow(in_page, workflow, heard):
    """The page itself hands outputs to the node of that id in whichever workflow is open."""
    script = """
        showing(%s)
        const { extensionForOutputs } = await load('graph')
        const heard = []
        class Node { onExecuted() { heard.push('stock') } }
        const extension = extensionForOutputs('test', () => true, () => heard.push('ours'))
        extension.beforeRegisterNodeDef(Node, { name: 'UnclipPick' })
        new Node().onExecuted({ text: ['x'] })
        tell(heard)
    """
    assert in_page(script % json.dumps(of_run(workflow))) == heard


# ---- outputs that come back ----


def told_again(in_page, stores, changes="", free=()):
    """The ids of the nodes that are told what the last run gave: when outputs come back, and after a reload.

    Node 2 hangs on node 1, as they were queued but for what `changes` makes of the nodes `one` and `two`.
    """
    return in_page(f"""
        showing({json.dumps(stores)})
        const graph = app.rootGraph
        graph.id = 'here'
        const text = {{ name: 'text', value: 'a red circle', dynamicPrompts: true }}
        const one = {{ id: '1', graph, comfyClass: 'UnclipTextEncode', widgets: [text] }}
        const indices = {{ name: 'indices', value: '0' }}
        const two = {{ id: '2', graph, comfyClass: 'UnclipPick', widgets: [indices] }}
        app.nodes = [one, two]
        const queued = {{
          1: {{ class_type: 'UnclipTextEncode', inputs: {{ text: 'a red circle' }} }},
          2: {{ class_type: 'UnclipPick', inputs: {{ image: ['1', 0], indices: '0' }} }}
        }}
        const extra = {{ extra_pnginfo: {{ workflow: {{ id: 'here' }} }} }}
        const run = {{ prompt: [0, 'run', queued, extra], outputs: {{ 1: {{}}, 2: {{}} }} }}
        app.api.fetchApi = async () => ({{ ok: true, json: async () => ({{ run }}) }})
        {changes}
        const {{ extensionForOutputs }} = await load('graph')
        let told = []
        const hear = ({{ id }}) => told.push(id)
        const extension = extensionForOutputs('test', () => true, hear, {json.dumps(list(free))})
        extension.onNodeOutputsUpdated(run.outputs)
        const back = told
        told = []
        await extension.afterConfigureGraph()
        tell([back.toSorted(), told.toSorted()])
    """)


RUNNING = {"nodeLocationProgressStates": {"1": {"state": "finished"}, "2": {"state": "running"}}}


@pytest.mark.parametrize(("workflow", "told"), [(HERE, ["1"]), (ELSEWHERE, ["1", "2"])])
def test_what_comes_back_is_not_told_of_a_node_that_runs(in_page, workflow, told):
    """It is of a run before. A node with the id of one that runs in another workflow is told."""
    stores = of_run(workflow)
    assert told_again(in_page, stores | {"execution": stores["execution"] | RUNNING}) == [told, told]


def test_after_a_reload_a_node_is_told_where_all_that_leads_to_it_stands_as_it_was_queued(in_page):
    assert told_again(in_page, {})[1] == ["1", "2"]
    assert told_again(in_page, {}, "text.value = 'a blue circle'")[1] == []
    assert told_again(in_page, {}, "indices.value = '1'")[1] == ["1"]


def test_after_a_reload_a_node_is_told_though_its_own_free_widgets_have_changed(in_page):
    assert told_again(in_page, {}, "indices.value = '1'", free=["indices"])[1] == ["1", "2"]
    assert told_again(in_page, {}, "text.value = 'a blue circle'", free=["text"])[1] == ["1"]  # 2 hangs on it


@pytest.mark.parametrize("text", ["a {red|blue} circle", "a red circle // a comment", r"a \{red\} circle"])
def test_after_a_reload_a_text_that_is_drawn_anew_stands_as_it_was_queued(in_page, text):
    changed = f"Object.assign(text, {{ value: {json.dumps(text)} }})"
    assert told_again(in_page, {}, changed)[1] == ["1", "2"]
    assert told_again(in_page, {}, f"{changed}.dynamicPrompts = false")[1] == []
