// Finding nodes on the canvas: by what the server calls them in a run, and by what the canvas keeps their outputs under.

import { app } from '../../../scripts/app.js'
import { runsElsewhere, store } from './stores.js'

export const rootGraph = () => app.rootGraph ?? app.graph

export const isOurs = (name) => typeof name === 'string' && name.startsWith('Unclip')

// "7", or "4:7" for node 7 within the subgraph that node 4 stands for.
export function nodeOfRun(id) {
  const path = String(id).split(':')
  const last = path.pop()
  const graph = path.reduce((graph, step) => nodeIn(graph, step)?.subgraph, rootGraph())
  return nodeIn(graph, last)
}

// "7", or "<id of a subgraph>:7".
export function nodeOfOutputs(locator) {
  const parts = String(locator).split(':')
  const last = parts.pop()
  return nodeIn(parts.length ? rootGraph().subgraphs?.get(parts[0]) : rootGraph(), last)
}

// The other way.
export const locatorOf = ({ graph, id }) => (graph === rootGraph() ? String(id) : `${graph.id}:${id}`)

function nodeIn(graph, id) {
  return graph?.getNodeById(id) ?? graph?.getNodeById(Number(id)) ?? undefined
}

// Every node of a graph, those in subgraphs too, with its id in a run.
export function* nodesOfRun(graph = rootGraph(), prefix = '') {
  for (const node of graph?.nodes ?? []) {
    yield [prefix + node.id, node]
    if (node.subgraph) yield* nodesOfRun(node.subgraph, `${prefix}${node.id}:`)
  }
}

// Call `tell(node, output)` with what a run gave for nodes of which `wanted(name)` holds, now and when outputs come back.
// After a reload those count whose node stands as it was queued, but for its own widgets of the names `free`.
export function extensionForOutputs(name, wanted, tell, free = []) {
  const tellAgain = (node, output) => { if (!isRunning(node)) tell(node, output) }
  return {
    name,
    beforeRegisterNodeDef(nodeType, nodeData) {
      if (!wanted(nodeData.name)) return
      const before = nodeType.prototype.onExecuted
      nodeType.prototype.onExecuted = function (output) {
        before?.call(this, output)
        if (output && !runsElsewhere()) tell(this, output)
      }
    },
    onNodeOutputsUpdated(outputs) {
      for (const [locator, output] of Object.entries(outputs)) {
        const node = nodeOfOutputs(locator)
        if (node && wanted(node.comfyClass) && output) tellAgain(node, output)
      }
    },
    async afterConfigureGraph() {
      for (const [node, output] of await outputsOfHistory(wanted, free)) tellAgain(node, output)
    }
  }
}

// What comes back for a node that runs at this moment is of a run before, and would end its live preview.
function isRunning(node) {
  return !runsElsewhere() && store('execution')?.nodeLocationProgressStates?.[locatorOf(node)]?.state === 'running'
}

const RUNS_ASKED = 16

// What the last runs of this very workflow gave for its nodes: a page that is loaded anew knows nothing of them.
async function outputsOfHistory(wanted, free) {
  const graph = rootGraph()
  const nodes = new Map(nodesOfRun(graph))
  const waiting = new Set([...nodes.keys()].filter((id) => wanted(nodes.get(id).comfyClass)))
  const found = []
  if (!waiting.size) return found
  for (const { prompt, outputs } of await lastRuns()) {
    if (prompt[3]?.extra_pnginfo?.workflow?.id !== graph.id) continue
    for (const id of waiting) {
      if (!outputs[id] || !isAsQueued(id, prompt[2], nodes, free)) continue
      found.push([nodes.get(id), outputs[id]])
      waiting.delete(id)
    }
  }
  return graph === rootGraph() ? found : []
}

let asked = null // several extensions ask at once

function lastRuns() {
  asked ??= app.api.fetchApi(`/history?max_items=${RUNS_ASKED}`)
    .then((answer) => (answer.ok ? answer.json() : {}))
    .then((history) => Object.values(history).reverse())
    .finally(() => { asked = null })
  return asked
}

// Whether a widget's text holds what ComfyUI draws, or takes out, anew for every prompt that it makes.
export const isDrawn = ({ dynamicPrompts, value }) => Boolean(dynamicPrompts) && /[{}\\]|\/[/*]/.test(value)

// Whether a node, but for its widgets of the names `free`, and all that leads to it stand as they were queued; seeds and
// texts may have been drawn anew since.
function isAsQueued(id, queued, nodes, free = []) {
  const { class_type: type, inputs } = queued[id] ?? {}
  const node = nodes.get(id)
  if (!type || type !== node?.comfyClass) return false
  const fixed = (node.widgets ?? []).filter((widget) => !isDrawn(widget) && !['seed', ...free].includes(widget.name))
  const values = new Map(fixed.map(({ name, value }) => [name, value]))
  return Object.entries(inputs).every(([name, was]) => {
    if (Array.isArray(was)) return isAsQueued(String(was[0]), queued, nodes)
    return !values.has(name) || values.get(name) === was
  })
}
