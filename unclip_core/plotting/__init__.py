"""Plots drawn with Pillow, as image tensors."""
