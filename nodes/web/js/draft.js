// A run as a draft of itself: what hangs on a node in few steps, enlarged without a network, and saved nowhere.

import { isOurs } from './graph.js'

const STEPS = 3 // a third of a decoder's usual 8: things and places are where they will be, with less detail
const STARTS = { UnclipDecoderSample: 'image', UnclipPriorSample: 'embedding' } // of a start from there, `strength` of the steps are left
const UPSCALE = 'UnclipUpscale'
const ENLARGE = 'ImageScaleBy'
const ENLARGED = { upscale_method: 'bicubic', scale_by: 4 } // as Upscale does: the image keeps its place on the canvas
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
  const drafted = [...ids].map((id) => [id, nodeAsDraft(prompt[id])])
  const draft = { ...prompt, ...Object.fromEntries(drafted) }
  return drafted.every(([id, node]) => node === prompt[id]) ? null : draft
}

function nodeAsDraft(node) {
  const { class_type: type, inputs } = node
  if (type === SAVE) return { ...node, class_type: PREVIEW, inputs: { images: inputs.images } }
  if (type === UPSCALE) return { ...node, class_type: ENLARGE, inputs: { image: inputs.image, ...ENLARGED } }
  if (!isOurs(type) || !('steps' in inputs)) return node
  const steps = stepsOfDraft(type, inputs)
  return inputs.steps > 0 && inputs.steps <= steps ? node : { ...node, inputs: { ...inputs, steps } }
}

// So many that at least one is left of a start from something; no draft where a link brings the strength.
function stepsOfDraft(type, inputs) {
  if (!Array.isArray(inputs[STARTS[type]])) return STEPS
  return inputs.strength > 0 ? Math.max(STEPS, Math.ceil(1 / inputs.strength)) : Infinity
}

// Whether a node may run in a draft: what saves anything but an image has nothing to show.
export const isDrafted = ({ class_type: type }) => type === SAVE || !/Save/.test(type)

function linksOf({ inputs }) {
  return Object.entries(inputs).filter(([, value]) => Array.isArray(value))
}
