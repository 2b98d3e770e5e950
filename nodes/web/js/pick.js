// Pick: the candidates of the last run, to be clicked. A click picks one alone, with Ctrl, Cmd or Shift one more.

import { app } from '../../../scripts/app.js'
import { extensionForOutputs } from './graph.js'
import { beginChange } from './stores.js'

const NODE = 'UnclipPick'
const SIDE = 72 // px
const GAP = 4
const ROWS_SHOWN = 3
const MARGIN = 8

app.registerExtension({
  ...extensionForOutputs('unCLIP.Pick', (name) => name === NODE, (node, output) => {
    if (output.candidates) node.unclipPicker?.show(output.candidates)
  }, ['indices']), // a click changes which are picked, not which there are
  nodeCreated(node) {
    if (node.comfyClass === NODE) node.unclipPicker = new Picker(node)
  }
})

class Picker {
  constructor(node) {
    this.node = node
    this.candidates = []
    this.grid = document.createElement('div')
    this.grid.className = 'unclip-pick'
    Object.assign(this.grid.style, {
      display: 'flex', flexWrap: 'wrap', gap: `${GAP}px`, alignContent: 'flex-start', overflow: 'auto',
      font: '11px/13px sans-serif', color: 'var(--input-text, #ddd)', boxSizing: 'border-box'
    })
    const widget = node.addDOMWidget('pick', 'unclip_pick', this.grid, {
      serialize: false, hideOnZoom: false, hideInPanel: true, margin: MARGIN,
      getMinHeight: () => this.height() + 2 * MARGIN
    })
    widget.serialize = false
    for (const [object, method] of [[this.widget, 'callback'], [node, 'onConfigure']]) {
      const before = object[method]
      object[method] = (...given) => {
        const result = before?.apply(object, given)
        this.mark()
        return result
      }
    }
    this.show([])
  }

  get widget() {
    return this.node.widgets.find((widget) => widget.name === 'indices')
  }

  height() {
    const columns = Math.max(Math.floor((this.node.size[0] - 4 * MARGIN + GAP) / (SIDE + GAP)), 1)
    const rows = Math.min(Math.ceil(this.candidates.length / columns), ROWS_SHOWN)
    return Math.max(rows, 1) * (SIDE + GAP) - GAP
  }

  show(candidates) {
    this.candidates = candidates
    this.grid.replaceChildren(...candidates.map((each, index) => this.tile(each, index)))
    if (!candidates.length) this.grid.textContent = 'Run once: the candidates appear here, to be clicked.'
    this.grid.style.minHeight = `${this.height()}px`
    this.mark()
    const [width, height] = this.node.computeSize()
    this.node.setSize([Math.max(this.node.size[0], width), Math.max(this.node.size[1], height)])
    app.canvas?.setDirty(true, true)
  }

  tile({ picture, label }, index) {
    const tile = document.createElement('button')
    Object.assign(tile.style, {
      width: `${SIDE}px`, height: `${SIDE}px`, padding: '2px', overflow: 'hidden', borderRadius: '6px',
      background: picture ? `center/cover url("${picture}")` : '#333', color: '#fff', textAlign: 'left',
      font: 'inherit', cursor: 'pointer', boxSizing: 'border-box', display: 'flex', alignItems: 'flex-start'
    })
    const words = document.createElement('span')
    words.textContent = picture ? String(index) : `${index} ${label}`
    if (picture) Object.assign(words.style, { background: '#000a', borderRadius: '4px', padding: '1px 4px' })
    tile.append(words)
    tile.title = label
    tile.addEventListener('pointerdown', (event) => event.stopPropagation())
    tile.addEventListener('click', (event) => this.pick(index, event.ctrlKey || event.metaKey || event.shiftKey))
    return tile
  }

  picked() {
    return String(this.widget.value).split(',').map((text) => text.trim()).filter(Boolean).map(Number)
  }

  pick(index, more) {
    const now = this.picked()
    const left = now.filter((each) => each !== index)
    const next = !more ? [index] : left.length === now.length ? [...now, index] : left
    if (!next.length) return // one is always picked
    const text = next.join(',')
    const end = beginChange()
    this.widget.value = text
    this.widget.callback?.(text)
    end()
    this.mark()
  }

  mark() {
    const picked = new Set(this.picked())
    ;[...this.grid.children].forEach((tile, index) => {
      tile.style.border = picked.has(index) ? '3px solid #00b8a3' : '3px solid transparent'
      tile.style.opacity = picked.has(index) ? 1 : 0.6
      tile.setAttribute('aria-pressed', picked.has(index))
    })
  }
}
