// A colour for each of our sockets, on the classic canvas and on nodes drawn by Vue.

import { app } from '../../../scripts/app.js'

// Chosen to be told apart on dark and light, and from the colours of ComfyUI's own sockets.
const COLOURS = {
  UNCLIP_CLIP: '#E0B000',
  UNCLIP_TEXT: '#FF8A5B',
  UNCLIP_PRIOR: '#A66BFF',
  UNCLIP_DECODER: '#E5484D',
  UNCLIP_UPSCALER: '#E255A1',
  UNCLIP_EMBEDDING: '#00B8A3',
  UNCLIP_NOISE: '#7C93AD',
  UNCLIP_BASIS: '#7CB518'
}

// A palette blanks every type that it does not name: a type keeps its colour unless a palette names another.
function keep(table, type, colour) {
  let chosen = ''
  Object.defineProperty(table, type, {
    configurable: true,
    enumerable: true,
    get: () => chosen || colour,
    set: (value) => { chosen = value }
  })
}

function styleSheet() {
  const sheet = document.createElement('style')
  const rules = Object.entries(COLOURS).map(([type, colour]) => `--color-datatype-${type}: ${colour};`)
  sheet.textContent = `:root { ${rules.join(' ')} }`
  return sheet
}

app.registerExtension({
  name: 'unCLIP.Colours',
  setup() {
    for (const [type, colour] of Object.entries(COLOURS)) {
      keep(window.LGraphCanvas.link_type_colors, type, colour)
      keep(app.canvas.default_connection_color_byType, type, colour)
    }
    document.head.append(styleSheet())
    app.canvas.setDirty(true, true)
  }
})
