"""The core of unCLIP: schedules, samplers, nets, checkpoints and pipelines, without any host.

Nothing here imports the nodes or ComfyUI. Data flows text -> clip -> prior -> decoder -> upsampler -> image.
"""
