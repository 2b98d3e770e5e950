// What our nodes say of a run, below their widgets: warnings, scores, the settings that "auto" stood for.

import { app } from '../../../scripts/app.js'
import { extensionForOutputs, isOurs, locatorOf, nodeOfRun } from './graph.js'
import { isFollowing } from './run_below.js'
import { runsElsewhere, store } from './stores.js'

const WIDGET = 'unclip_words'
const PREVIEW = '$$canvas-image-preview' // ComfyUI's own widget on the classic canvas
const LINE = 16 // px
const PADDING = 10
const LETTER = 6.2 // about
const LINES_SHOWN = 3 // the rest by the wheel, or in a taller node

app.registerExtension(extensionForOutputs('unCLIP.Words', isOurs, (node, output) => {
  const warnings = output.warnings ?? []
  const words = [output.text, warnings, output.notes].find((each) => each?.length)
  if (!output.images?.length) closeToPreviews(node)
  if (words) say(node, words.join('\n'), new Set(warnings))
}))

// What a node said of its last run is stale once it runs again; its live preview takes the place. Under a moving hand,
// where the next words are there at once, it would flicker.
app.api.addEventListener('executing', ({ detail }) => {
  const node = detail && nodeOfRun(detail)
  if (!isOurs(node?.comfyClass) || runsElsewhere()) return
  openToPreviews(node)
  const widget = node.widgets?.find((each) => each.name === WIDGET)
  if (widget && !isFollowing()) node.removeWidget(widget)
})

// The live preview of a run that has ended: the words take its room, and the image itself is with what saves it. One
// that the classic canvas is still loading would come back behind them: until the next run the node takes none.
function closeToPreviews(node) {
  store('nodeOutput')?.revokePreviewsByLocatorId?.(locatorOf(node))
  const index = node.widgets?.findIndex((widget) => widget.name === PREVIEW) ?? -1
  const [preview] = index < 0 ? [] : node.widgets.splice(index, 1)
  preview?.onRemove?.()
  Object.defineProperty(node, 'imgs', { configurable: true, get() {}, set() {} })
  if (preview) {
    node.setSize([node.size[0], Math.max(node.size[1] - (preview.computedHeight ?? 0), node.computeSize()[1])])
  }
}

function openToPreviews(node) {
  if (Object.getOwnPropertyDescriptor(node, 'imgs')?.set) delete node.imgs
}

function say(node, text, warnings) {
  const widget = node.widgets?.find((each) => each.name === WIDGET) ?? addWidget(node)
  widget.element.firstChild.replaceChildren(...text.split('\n').map((line) => {
    const row = document.createElement('div')
    row.textContent = line || '\u00a0'
    if (warnings.has(line)) row.style.color = 'var(--warning-background, #e0a000)'
    return row
  }))
  widget.element.words = text
  widget.element.style.minHeight = `${height(node, text, LINES_SHOWN)}px`
  const [width, needed] = node.computeSize()
  node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], needed)])
  app.canvas.setDirty(true, true)
}

// In Vue a node grows with what is in it: the text lies in a frame whose height does not follow from it, so that a long
// one is scrolled and does not push the node over its neighbour.
function addWidget(node) {
  const element = document.createElement('div')
  element.className = 'unclip-words'
  Object.assign(element.style, { position: 'relative', boxSizing: 'border-box' })
  const words = element.appendChild(document.createElement('div'))
  Object.assign(words.style, {
    position: 'absolute', inset: 0, font: `12px/${LINE}px sans-serif`, overflow: 'auto', whiteSpace: 'pre-wrap',
    overflowWrap: 'anywhere', padding: `${PADDING / 2}px`, boxSizing: 'border-box', userSelect: 'text',
    color: 'var(--input-text, #ddd)'
  })
  const widget = node.addDOMWidget(WIDGET, 'unclip_words', element, {
    serialize: false,
    hideOnZoom: false,
    hideInPanel: true,
    margin: 6,
    getValue: () => element.words ?? '',
    getMinHeight: () => height(node, element.words, LINES_SHOWN) + 12,
    getMaxHeight: () => height(node, element.words, Infinity) + 12
  })
  widget.serialize = false
  return widget
}

function height(node, text = '', most) {
  const letters = Math.max((node.size[0] - 40) / LETTER, 10)
  const lines = text.split('\n').reduce((sum, line) => sum + Math.max(Math.ceil(line.length / letters), 1), 0)
  return Math.min(lines, most) * LINE + PADDING
}
