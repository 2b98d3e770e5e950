// What the canvas offers where a wire of ours is let go on empty ground: ComfyUI fills the list with the nodes whose
// required input is just of that type, in the order in which it hears of them; these are the usual ones.

import { app } from '../../../scripts/app.js'

const NEXT = {
  UNCLIP_EMBEDDING: ['UnclipDecoderSample', 'UnclipEmbeddingInterpolate', 'UnclipEmbeddingBlend', 'UnclipTextDiff',
    'UnclipDescribe', 'UnclipInpaint', 'UnclipEmbeddingPad']
}

app.registerExtension({
  name: 'unCLIP.Suggestions',
  setup: suggest,
  refreshComboInNodes: suggest // ComfyUI has filled the lists anew
})

function suggest() {
  for (const [type, names] of Object.entries(NEXT)) {
    window.LiteGraph.slot_types_default_out[type] = ['Reroute', ...names]
  }
}
