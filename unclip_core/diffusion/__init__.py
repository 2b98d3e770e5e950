"""Diffusion maths: processes, schedules, denoisers, guidance, samplers, noise, inversion and inpainting."""
