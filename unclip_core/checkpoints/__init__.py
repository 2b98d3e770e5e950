"""Reading and writing weights: files (safetensors, strict), our own folder format, importers by family."""
