// Running what hangs on a node while its values change under the mouse: drafts, one at a time and the newest values
// next, and once the hand rests, all of it as it stands.

import { app } from '../../../scripts/app.js'
import { draftOf, idsBelow, isDrafted } from './draft.js'
import { keepTexts } from './drawn_texts.js'
import { nodesOfRun } from './graph.js'
import { keepRun, openWorkflow } from './stores.js'

const DONE = 'execution_success'
const FAILED = 'execution_error'
const ENDS = [DONE, FAILED, 'execution_interrupted']
const REST = 250 // ms without a move
const QUICK = 1000 // ms: so short a run needs no live preview
const PATIENCE = 3000 // ms that a draft is waited for, though the hand has moved on: it shows something under way

const waiting = new Map() // prompt id -> what to call with the event of its end
const ended = new Map() // prompt id -> the event of its end
const passing = new Set() // ids of drafts, and of runs that were stopped
const drafts = new Set() // ids of drafts alone
let busy = false
let next = null // the node whose values have changed
let current = null // the run under way
let quick = false // whether the last run was
let lastNode = null // the node that it hung on

app.registerExtension({
  name: 'unCLIP.RunBelow',
  setup() {
    app.api.addEventListener('reconnected', () => [...waiting.keys()].forEach((id) => end(id, 'reconnected')))
  }
})

// Here, and not in setup: before the page listens itself, which would show the error of a draft, too.
for (const name of ENDS) {
  app.api.addEventListener(name, (event) => {
    const id = event.detail.prompt_id
    if (name === FAILED && drafts.has(id)) event.stopImmediatePropagation() // the run that follows says what is wrong
    end(id, name)
  })
}

// Whether runs follow one another so fast that what nodes show is better replaced than taken away.
export const isFollowing = () => busy && quick

// Queue runs of the outputs that hang on `node`, which has just changed.
export async function runBelow(node) {
  next = node
  if (current) stopIfStale()
  if (busy) return
  busy = true
  try {
    while (next) await follow()
  } catch (error) {
    next = null
    app.extensionManager.toast.add({ severity: 'error', summary: 'unCLIP', detail: reasonOf(error) })
  } finally {
    busy = false
    forget([...passing])
    passing.clear()
    drafts.clear()
  }
}

async function follow() {
  const node = next
  next = null
  if (node !== lastNode) quick = false
  lastNode = node
  const workflow = openWorkflow() // here: while a run lasts another may be opened
  const prompt = await app.graphToPrompt()
  keepTexts(prompt.output)
  const id = idInRun(node)
  const below = id ? idsBelow(prompt.output, id) : new Set()
  const outputs = [...below].filter((key) => isOutput(prompt.output[key]))
  if (!outputs.length) return
  const draft = draftOf(prompt.output, below)
  const drafted = draft ? outputs.filter((key) => isDrafted(prompt.output[key])) : []
  const began = performance.now()
  const how = drafted.length
    ? await run({ ...prompt, output: draft }, drafted, workflow, { isDraft: true }).catch(() => FAILED) // refused: as if it failed
    : await run(prompt, outputs, workflow, { patient: true })
  quick = how === DONE && performance.now() - began < QUICK
  if (!drafted.length || ![DONE, FAILED].includes(how)) return
  if (!next) await new Promise((rested) => setTimeout(rested, REST))
  if (!next) await run(prompt, outputs, workflow)
}

// Queue a run and wait for its end: how it came to it. A draft, or what is `patient`, is not stopped at once.
// The canvas' own queueing is not used: it draws new seeds, and the images would not follow the mouse alone.
async function run(prompt, outputs, workflow, { isDraft = false, patient = isDraft } = {}) {
  const { prompt_id: id } = await app.api.queuePrompt(0, prompt, {
    partialExecutionTargets: outputs,
    previewMethod: quick ? 'none' : app.extensionManager.setting.get('Comfy.Execution.PreviewMethod') // as Run asks
  })
  if (!id) return FAILED
  keepRun(id, prompt.output, workflow)
  if (isDraft) [passing, drafts].forEach((ids) => ids.add(id))
  current = { id, patient, began: performance.now(), stopped: false }
  if (next) stopIfStale() // changed while it was queued
  const how = ended.get(id) ?? (await new Promise((resolve) => waiting.set(id, resolve)))
  waiting.delete(id)
  ended.clear()
  current = null
  return how
}

function end(id, how) {
  ended.set(id, how)
  waiting.get(id)?.(how)
}

// What the server holds against a prompt is not in the message of ComfyUI's error, but in how it prints.
function reasonOf(error) {
  return error.response ? error.toString() : String(error.message ?? error)
}

// Stop the run under way, whose values are no longer the newest, unless it will soon be there.
async function stopIfStale() {
  const { id, patient, began, stopped } = current
  if (stopped || (patient && performance.now() - began < PATIENCE)) return
  current.stopped = true
  passing.add(id)
  await app.api.deleteItem('queue', id) // if it has not begun
  await app.api.interrupt(id)
  end(id, 'stopped')
}

// Drafts and stopped runs are no part of the history: it holds what was made.
function forget(ids) {
  if (!ids.length) return
  app.api.fetchApi('/history', { method: 'POST', body: JSON.stringify({ delete: ids }) })
}

const idInRun = (node) => [...nodesOfRun()].find(([, each]) => each === node)?.[0]

const isOutput = ({ class_type: type }) => window.LiteGraph.registered_node_types[type]?.nodeData?.output_node
