// The page's own stores (Pinia), for what ComfyUI gives extensions no way to; undefined where a frontend has none.

export function store(name) {
  return document.getElementById('vue-app')?.__vue_app__?.config.globalProperties.$pinia?._s.get(name)
}

// Whether the run under way is known to be of another workflow than the one that is open: its nodes have ids that nodes
// here have too. Of runs that the page did not queue itself it knows no workflow.
export function runsElsewhere() {
  const { activeJobId, queuedJobs } = store('execution') ?? {}
  const ran = queuedJobs?.[activeJobId]?.workflow?.path
  const shown = store('workflow')?.activeWorkflow?.path
  return Boolean(ran && shown && ran !== shown)
}
