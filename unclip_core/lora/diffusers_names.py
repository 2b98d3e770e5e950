"""LoRA keys as diffusers' training scripts write them, for priors and UNets of diffusers' names.

Those of 2023, Kandinsky 2.2's among them: `<block>.processor.to_q_lora.{down,up}.weight`. Later ones:
`<block>.to_q.lora.{down,up}.weight` or `.lora_layer.`. All without an alpha: they are added as they are.
"""

import re

_LAYER = "to_q|to_k|to_v|add_k_proj|add_v_proj|to_out"
_KEY = re.compile(
    rf"(?P<block>.+)\.(?:processor\.(?P<of_processor>{_LAYER})_lora|(?P<of_layer>[\w.]+?)\.lora(?:_layer)?)"
    r"\.(?P<factor>down|up)\.weight"
)
_PREFIX = re.compile(r"^(?:unet|prior)\.(?=(?:down_blocks|up_blocks|mid_block|transformer_blocks)\.)")
_PRIOR = (
    (r"^transformer_blocks\.", "blocks."),
    (r"\.attn1\.to_out(?:\.0)?$", ".to_out"),
    (r"\.attn1\.", "."),
    (r"\.ff\.net\.0\.proj$", ".mlp_in"),
    (r"\.ff\.net\.2$", ".mlp_out"),
)
_UNET = (
    (r"^(down|up)_blocks\.", r"unet.\1."),
    (r"^mid_block\.", "unet.middle."),
    (r"\.to_out(?:\.0)?$", ".to_out"),
    (r"\.add_([kv])_proj$", r".context_\1"),
    (r"\.resnets\.", ".blocks."),
    (r"\.time_emb_proj$", ".time_proj"),
    (r"\.conv_shortcut$", ".skip"),
)


def factor_of(key: str) -> tuple[str, str] | None:
    """Our module and factor ("A" or "B") that a key of diffusers' own styles is for; None where it is none of them."""
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    module = f"{match['block']}.{match['of_processor'] or match['of_layer']}"
    return our_module(module), {"down": "A", "up": "B"}[match["factor"]]


def our_module(module: str) -> str:
    """Our name of a layer of diffusers' prior or UNet; one that is not of these names stays as it is."""
    name = _PREFIX.sub("", module)
    rules = _PRIOR if name.startswith("transformer_blocks.") else _UNET
    if rules is _UNET and not name.startswith(("down_blocks.", "up_blocks.", "mid_block.")):
        return module
    for pattern, by in rules:
        name = re.sub(pattern, by, name)
    return name
