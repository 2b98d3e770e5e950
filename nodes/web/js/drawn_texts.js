// Dynamic prompts in runs that follow one another: ComfyUI draws one of {a|b} anew whenever it makes a prompt, and what
// leads to a pad would run with every move of it.

import { app } from '../../../scripts/app.js'
import { isDrawn, nodesOfRun, rootGraph } from './graph.js'

const kept = new Map() // workflow, node and widget -> what the widget held, and the text that was drawn of it

app.api.addEventListener('promptQueued', () => kept.clear()) // Run draws anew

// Put the texts that were drawn first in place of those of this prompt, where their widgets hold what they held.
export function keepTexts(output) {
  for (const [id, node] of nodesOfRun()) {
    const inputs = output[id]?.inputs ?? {}
    const drawn = (node.widgets ?? []).filter((widget) => isDrawn(widget) && typeof inputs[widget.name] === 'string')
    for (const widget of drawn) keepText(inputs, id, widget)
  }
}

function keepText(inputs, id, { name, value: held }) {
  const key = `${rootGraph().id} ${id} ${name}`
  if (kept.get(key)?.held !== held) kept.set(key, { held, text: inputs[name] })
  inputs[name] = kept.get(key).text
}
