// The order of our templates in ComfyUI's browser, which shows them as the file system lists them: the plain ones first,
// what needs a download last.

import { app } from '../../../scripts/app.js'

const FIRST = ['text_to_image', 'text_to_image_candidates', 'text_to_image_1024', 'variations', 'blend',
  'embedding_pad', 'interpolate_prompts', 'text_diff', 'inpaint', 'outpaint']
const DOWNLOADED = /^(karlo|kandinsky|eclipse|sd21|sdxl|stable_cascade)/
const OURS = 'text_to_image_candidates' // tells our folder, whatever it is called

const ask = app.api.getWorkflowTemplates.bind(app.api)
app.api.getWorkflowTemplates = async () => {
  const found = await ask()
  for (const names of Object.values(found)) if (names.includes(OURS)) names.sort(compare)
  return found
}

function compare(one, other) {
  return place(one) - place(other) || one.localeCompare(other)
}

function place(name) {
  if (DOWNLOADED.test(name)) return FIRST.length + 1
  return FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length
}
