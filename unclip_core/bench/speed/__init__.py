"""Time and memory beside diffusers', on the same weights and noise (`unclip bench speed`), and quality by steps."""
