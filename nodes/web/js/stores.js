// The page's own stores (Pinia), for what ComfyUI gives extensions no way to; undefined where a frontend has none.

export function store(name) {
  return document.getElementById('vue-app')?.__vue_app__?.config.globalProperties.$pinia?._s.get(name)
}
