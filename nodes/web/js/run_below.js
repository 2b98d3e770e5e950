// Running what hangs on a node while its values change under the mouse: a run at a time, the newest values next.

import { app } from '../../../scripts/app.js'
import { rootGraph } from './graph.js'

const ENDS = ['execution_success', 'execution_error', 'execution_interrupted']
const MUTED = 2
const BYPASSED = 4

const waiting = new Map() // prompt id -> what to call at its end
const ended = new Set()
let busy = false
let next = null

app.registerExtension({
  name: 'unCLIP.RunBelow',
  setup() {
    for (const name of ENDS) {
      app.api.addEventListener(name, ({ detail }) => {
        ended.add(detail.prompt_id)
        waiting.get(detail.prompt_id)?.()
      })
    }
    app.api.addEventListener('reconnected', () => waiting.forEach((done) => done()))
  }
})

// Queue a run of the outputs that hang on `node`, once the run that this has queued before is done.
export async function runBelow(node) {
  next = node
  if (busy) return
  busy = true
  try {
    while (next) {
      const outputs = outputsBelow(next)
      next = null
      if (outputs.length) await run(outputs)
    }
  } catch (error) {
    next = null
    app.extensionManager.toast.add({ severity: 'error', summary: 'unCLIP', detail: String(error.message ?? error) })
  } finally {
    busy = false
  }
}

// Without the canvas' own queueing: that draws new seeds, and the images would not follow the mouse alone.
async function run(outputs) {
  const prompt = await app.graphToPrompt()
  const { prompt_id: id } = await app.api.queuePrompt(0, prompt, {
    partialExecutionTargets: outputs,
    previewMethod: app.extensionManager.setting.get('Comfy.Execution.PreviewMethod') // as Run asks for them
  })
  if (id && !ended.has(id)) await new Promise((resolve) => waiting.set(id, resolve))
  waiting.delete(id)
  ended.clear()
}

function outputsBelow(node) {
  const graph = rootGraph()
  if (node.graph !== graph) return [] // within a subgraph
  const seen = new Set()
  const ahead = [node]
  while (ahead.length) {
    for (const slot of ahead.pop().outputs ?? []) {
      for (const link of slot.links ?? []) {
        const below = graph.getNodeById(graph.getLink(link)?.target_id)
        if (!below || seen.has(below) || below.mode === MUTED) continue
        seen.add(below)
        ahead.push(below)
      }
    }
  }
  const outputs = [...seen].filter((each) => each.constructor.nodeData?.output_node && each.mode !== BYPASSED)
  return outputs.map((each) => String(each.id))
}
