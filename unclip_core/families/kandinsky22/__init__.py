"""Kandinsky 2.2 (ai-forever, 2023): a prior folder and a decoder folder in diffusers' layout, joined."""
