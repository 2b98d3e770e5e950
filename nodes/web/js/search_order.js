// The order of our nodes in the search box where what is typed is how the ids of all of them begin ("unclip"): ComfyUI
// ranks those by the length of the id, Pick before Load unCLIP Model. Here the five that draw a first image lead.

import { app } from '../../../scripts/app.js'

const FIRST = ['UnclipLoadModel', 'UnclipTextEncode', 'UnclipPriorSample', 'UnclipDecoderSample', 'UnclipUpscale']
const KIND = 0 // where ComfyUI's score says how the name was found,
const BEGINS = 1 // here that it begins with what is typed,
const LENGTH = 3 // and where how long it is

app.registerExtension({
  name: 'unCLIP.SearchOrder',
  beforeRegisterVueAppNodeDefs(defs) {
    const ours = defs.filter(({ name }) => name.startsWith('Unclip'))
    const shortest = Math.min(...ours.map(({ name }) => name.length))
    for (const def of ours) def.postProcessSearchScores = scoresOf(shortest)
  }
})

// As if our five had the shortest of our ids: before our others, but not before what is used more, or is shorter.
function scoresOf(shortest) {
  return function (found) {
    const scores = Object.getPrototypeOf(this).postProcessSearchScores.call(this, found)
    const first = FIRST.indexOf(this.name)
    if (first < 0 || scores[KIND] !== BEGINS || scores[LENGTH] !== this.name.length) return scores
    return scores.with(LENGTH, shortest - 1 + first / FIRST.length)
  }
}
