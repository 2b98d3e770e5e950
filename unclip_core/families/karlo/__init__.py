"""Karlo (kakaobrain, 2022): diffusers' folder layout and kakaobrain's own files."""
