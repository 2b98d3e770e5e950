// A run as a draft of itself: what hangs on a node in few steps, not enlarged, and saved nowhere.

import { isOurs } from './graph.js'

const STEPS = 3 // a third of a decoder's usual 8: things and places are where they will be, with less detail
const UPSCALE = 'UnclipUpscale'
const SAVE = 'SaveImage'
const PREVIEW = 'PreviewImage'

// The ids of what hangs on node `id` in a prompt, in which subgraphs are open; itself left out.
export function idsBelow(prompt, id) {
  const below = new Set([id])
  for (let size = 0; size !== below.size;) {
    size = below.size
    for (const [key, node] of Object.entries(prompt)) {
      if (linksOf(node).some(([, [from]]) => below.has(from))) below.add(key)
    }
  }
  below.delete(id)
  return below
}

// The prompt as a draft as far as it is of `ids`; null if it would be the same.
export function draftOf(prompt, ids) {
  const draft = structuredClone(prompt)
  for (const id of ids) {
    const node = draft[id]
    if (isOurs(node.class_type) && 'steps' in node.inputs) node.inputs.steps = fewer(node.inputs.steps)
    if (node.class_type === SAVE) draft[id] = { ...node, class_type: PREVIEW, inputs: { images: node.inputs.images } }
    for (const [name, link] of linksOf(node)) draft[id].inputs[name] = small(prompt, ids, link)
  }
  return JSON.stringify(draft) === JSON.stringify(prompt) ? null : draft
}

// Whether a node may run in a draft: what saves anything but an image has nothing to show.
export const isDrafted = ({ class_type: type }) => type === SAVE || !/Save/.test(type)

function linksOf({ inputs }) {
  return Object.entries(inputs).filter(([, value]) => Array.isArray(value))
}

// 0 stands for a model's own number.
function fewer(steps) {
  return typeof steps === 'number' && steps > 0 ? Math.min(steps, STEPS) : STEPS
}

// Where a link comes from, past the nodes that enlarge.
function small(prompt, ids, link) {
  const { class_type: type, inputs } = prompt[link[0]] ?? {}
  return ids.has(link[0]) && type === UPSCALE && Array.isArray(inputs.image) ? small(prompt, ids, inputs.image) : link
}
