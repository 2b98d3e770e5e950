// Finding nodes on the canvas: by what the server calls them in a run, and by what the canvas keeps their outputs under.

import { app } from '../../../scripts/app.js'
import { runsElsewhere } from './stores.js'

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
export function extensionForOutputs(name, wanted, tell) {
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
        if (node && wanted(node.comfyClass) && output) tell(node, output)
      }
    },
    async afterConfigureGraph() {
      for (const [node, output] of await outputsOfHistory(wanted)) tell(node, output)
    }
  }
}

const RUNS_ASKED = 16

// What the last runs of this very workflow gave for its nodes: a page that is loaded anew knows nothing of them.
async function outputsOfHistory(wanted) {
  const graph = rootGraph()
  const nodes = new Map(nodesOfRun(graph))
  const waiting = new Set([...nodes.keys()].filter((id) => wanted(nodes.get(id).comfyClass)))
  const found = []
  if (!waiting.size) return found
  for (const { prompt, outputs } of await lastRuns()) {
    if (prompt[3]?.extra_pnginfo?.workflow?.id !== graph.id) continue
    for (const id of waiting) {
      if (!outputs[id] || !isAsQueued(id, prompt[2], nodes)) continue
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

// Whether a node and all that leads to it stand as they were queued; seeds may have been drawn anew since.
function isAsQueued(id, queued, nodes) {
  const { class_type: type, inputs } = queued[id] ?? {}
  const node = nodes.get(id)
  if (!type || type !== node?.comfyClass) return false
  const widgets = new Map((node.widgets ?? []).map(({ name, value }) => [name, value]))
  return Object.entries(inputs).every(([name, was]) => {
    if (Array.isArray(was)) return isAsQueued(String(was[0]), queued, nodes)
    return name === 'seed' || !widgets.has(name) || widgets.get(name) === was
  })
}
