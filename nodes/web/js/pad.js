// Embedding Pad: a point to drag between the embeddings. It writes the widgets x and y, and what hangs on it follows.

import { app } from '../../../scripts/app.js'
import { runBelow } from './run_below.js'
import { beginChange } from './stores.js'

const NODE = 'UnclipEmbeddingPad'
const SIDE = 220 // px
const CHIP = 48
const COLOURS = ['#e5484d', '#3b82f6', '#eab308', '#22c55e']
const CORNERS = { // as unclip_core/embedding/pad.py has them
  2: [[0, 0.5], [1, 0.5]],
  3: [[0, 0], [1, 0], [0.5, 1]],
  4: [[0, 0], [1, 0], [0, 1], [1, 1]]
}
const SHAPES = {
  2: 'polygon(0 47%, 100% 47%, 100% 53%, 0 53%)',
  3: 'polygon(0 0, 100% 0, 50% 100%)',
  4: 'none'
}

app.registerExtension({
  name: 'unCLIP.Pad',
  nodeCreated(node) {
    if (node.comfyClass === NODE) new Pad(node)
  }
})

class Pad {
  constructor(node) {
    this.node = node
    this.board = element('div', {
      position: 'relative', width: `${SIDE}px`, height: `${SIDE}px`, margin: '0 auto', cursor: 'crosshair',
      touchAction: 'none', userSelect: 'none'
    })
    this.board.className = 'unclip-pad'
    const outer = element('div', { minHeight: `${SIDE}px` })
    outer.append(this.board)
    const widget = node.addDOMWidget('pad', 'unclip_pad', outer, {
      serialize: false, hideOnZoom: false, hideInPanel: true, margin: 8, getMinHeight: () => SIDE + 16,
      getMaxHeight: () => SIDE + 16
    })
    widget.serialize = false
    this.listen()
    this.draw()
  }

  listen() {
    const redraw = () => this.draw()
    for (const name of ['x', 'y']) after(this.widget(name), 'callback', redraw)
    after(this.node, 'onConfigure', redraw)
    after(this.node, 'onConnectionsChange', () => setTimeout(redraw))
    this.board.addEventListener('pointerenter', redraw) // a picture above may be another by now
    this.board.addEventListener('pointerdown', (event) => {
      if (event.button !== 0) return
      event.preventDefault()
      event.stopPropagation()
      this.board.setPointerCapture(event.pointerId)
      atRelease(event.pointerId, beginChange())
      this.move(event)
    })
    this.board.addEventListener('pointermove', (event) => {
      if (this.board.hasPointerCapture(event.pointerId)) this.move(event)
    })
  }

  widget(name) {
    return this.node.widgets.find((widget) => widget.name === name)
  }

  // With Shift the point moves without a run.
  move(event) {
    const box = this.board.getBoundingClientRect()
    const place = { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height }
    let moved = false
    for (const [name, value] of Object.entries(place)) moved = this.set(name, value) || moved
    if (moved && !event.shiftKey) runBelow(this.node)
  }

  set(name, value) {
    const widget = this.widget(name)
    const rounded = Math.round(Math.min(Math.max(value, 0), 1) * 100) / 100
    const linked = this.node.inputs?.some((input) => input.widget?.name === name && input.link != null)
    if (linked || widget.value === rounded) return false
    widget.value = rounded
    widget.callback?.(rounded)
    app.canvas.setDirty(true, true)
    return true
  }

  draw() {
    const sources = (this.node.inputs ?? []).filter(({ name }) => name.startsWith('embedding_'))
      .filter((input, index) => input.link != null || index < 2)
    const corners = CORNERS[sources.length]
    const y = sources.length === 2 ? 0.5 : this.widget('y').value
    this.board.replaceChildren(
      ground(corners), ...corners.map((at, index) => this.chip(sources[index], at, COLOURS[index])),
      knob(this.widget('x').value, y)
    )
  }

  chip(input, [x, y], colour) {
    const { picture, words } = shownBy(this.node, input)
    const chip = element('div', {
      position: 'absolute', left: `${x * (SIDE - CHIP)}px`, top: `${y * (SIDE - CHIP)}px`, width: `${CHIP}px`,
      height: `${CHIP}px`, boxSizing: 'border-box', border: `2px solid ${colour}`, borderRadius: '6px',
      background: 'rgba(20, 20, 20, 0.75)', color: '#fff', font: '9px/11px sans-serif', padding: '1px',
      overflow: 'hidden', pointerEvents: 'none'
    })
    chip.textContent = words || input?.name.replace('embedding_', '') || ''
    if (picture) Object.assign(chip.style, { background: `center/cover url("${picture}")`, color: 'transparent' })
    return chip
  }
}

// What an input's embedding comes from: the picture or the prompt that is next above it.
function shownBy(node, input) {
  const graph = node.graph
  let ahead = input?.link == null ? [] : [input.link]
  for (let depth = 0; depth < 4 && ahead.length; depth++) {
    const above = ahead.map((link) => graph?.getNodeById(graph.getLink(link)?.origin_id)).filter(Boolean)
    for (const each of above) {
      const value = (name) => each.widgets?.find((widget) => widget.name === name)?.value
      if (each.comfyClass === 'LoadImage' && value('image')) return { picture: address(value('image')) }
      if (each.comfyClass === 'UnclipTextEncode' && value('text')) return { words: value('text') }
    }
    ahead = above.flatMap((each) => (each.inputs ?? []).map(({ link }) => link).filter((link) => link != null))
  }
  return {}
}

function address(name) {
  const [, path, , type] = /^(.*?)( \[(\w+)\])?$/.exec(name)
  const parts = path.split('/')
  const filename = parts.pop()
  return app.api.apiURL(`/view?${new URLSearchParams({ filename, subfolder: parts.join('/'), type: type ?? 'input' })}`)
}

function ground(corners) {
  const glow = corners.map(([x, y], i) =>
    `radial-gradient(circle at ${x * 100}% ${y * 100}%, ${COLOURS[i]}cc, transparent 85%)`)
  return element('div', {
    position: 'absolute', inset: '0', borderRadius: corners.length === 4 ? '6px' : '0', pointerEvents: 'none',
    background: `${glow.join(', ')}, #333`, clipPath: SHAPES[corners.length]
  })
}

function knob(x, y) {
  return element('div', {
    position: 'absolute', left: `${x * 100}%`, top: `${y * 100}%`, width: '16px', height: '16px', zIndex: 1,
    transform: 'translate(-50%, -50%)', border: '2px solid #fff', borderRadius: '50%', boxSizing: 'border-box',
    background: '#000a', boxShadow: '0 0 3px #000', pointerEvents: 'none'
  })
}

// Call `then` when the pointer is no longer captured; where the board has gone meanwhile, only the document hears of it.
function atRelease(pointer, then) {
  const listen = ({ pointerId }) => {
    if (pointerId !== pointer) return
    document.removeEventListener('lostpointercapture', listen, true)
    then()
  }
  document.addEventListener('lostpointercapture', listen, true)
}

function element(tag, style) {
  const made = document.createElement(tag)
  Object.assign(made.style, style)
  return made
}

function after(object, method, then) {
  const before = object[method]
  object[method] = function (...given) {
    const result = before?.apply(this, given)
    then()
    return result
  }
}
