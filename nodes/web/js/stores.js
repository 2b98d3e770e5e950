// The page's own stores (Pinia), for what ComfyUI gives extensions no way to; undefined where a frontend has none.

export function store(name) {
  return document.getElementById('vue-app')?.__vue_app__?.config.globalProperties.$pinia?._s.get(name)
}

// Whether the run under way is known to be of another workflow than the one that is open: its nodes have ids that nodes
// here have too. Of runs that the page did not queue itself it knows no workflow.
export function runsElsewhere() {
  const { activeJobId, queuedJobs } = store('execution') ?? {}
  const ran = queuedJobs?.[activeJobId]?.workflow?.path
  const shown = openWorkflow()?.path
  return Boolean(ran && shown && ran !== shown)
}

export const openWorkflow = () => store('workflow')?.activeWorkflow ?? null

// Tell the page of which workflow a run is that was queued behind its back: what it gives is kept with that one, and
// comes back there after another was open, or after an undo.
export function keepRun(id, output, workflow) {
  store('execution')?.storeJob?.({ id, nodes: Object.keys(output), promptOutput: output, workflow })
}

// Begin what undo takes back as one change; returns what to call at its end. The page itself looks for changes at
// mouseup, which a pad under the hand does not let through, and which comes before a click.
export function beginChange() {
  const tracker = openWorkflow()?.changeTracker
  tracker?.beforeChange()
  return () => tracker?.afterChange()
}
