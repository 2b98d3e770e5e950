"""This project's own folder format: an index and one safetensors file per component."""
