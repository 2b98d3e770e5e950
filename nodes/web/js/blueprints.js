// The words by which the search box finds our blueprints. Their files have them, and the page reads them, but then lays
// over them what the server tells of a blueprint, which tells none: in frontends from 1.49 to 1.58 at least.

import { app } from '../../../scripts/app.js'
import { store } from './stores.js'

const OURS = / \(unCLIP\)$/
const KIND = 'SubgraphBlueprint.'
const LOOKS = 200 // the page loads them one by one while it starts, and tells nobody when it has
const PAUSE = 300 // ms

app.registerExtension({
  name: 'unCLIP.Blueprints',
  setup() {
    look(LOOKS, 0)
  }
})

// Look until some are there, and no more have come since.
function look(times, seen) {
  const isOurs = ({ name, display_name: shown }) => name.startsWith(KIND) && OURS.test(shown)
  const ours = (store('nodeDef')?.nodeDefs ?? []).filter(isOurs)
  for (const def of ours) def.search_aliases ??= store('subgraph').getBlueprint(def.name).extra?.BlueprintSearchAliases
  if (times && (!ours.length || ours.length > seen)) setTimeout(look, PAUSE, times - 1, ours.length)
}
