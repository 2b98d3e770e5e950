"""Map our keys to those of kakaobrain's own Karlo checkpoints, and of OpenAI's CLIP."""

import re
from collections.abc import Callable

from ...nets.unet_params import UNetParams
from ...weights.key_map import CheckpointKey
from .names import Rules, renamed

PRIOR: Rules = (
    (r"^time_embed\.linear1\.", "time_embed.0."),
    (r"^time_embed\.linear2\.", "time_embed.2."),
    (r"^image_in\.", "clip_img_proj."),
    (r"^text_embed_in\.", "text_emb_proj."),
    (r"^text_states_in\.", "text_enc_proj."),
    (r"^image_out\.", "out_proj."),
    (r"^norm_out\.", "final_ln."),
    (r"^positions$", "positional_embedding"),
    (r"^query$", "prd_emb"),
    (r"^blocks\.", "transformer.resblocks."),
    (r"\.norm([12])\.", r".ln_\1."),
    (r"\.to_[qkv]\.", ".attn.c_qkv."),
    (r"\.to_out\.", ".attn.c_proj."),
    (r"\.mlp_in\.", ".mlp.c_fc."),
    (r"\.mlp_out\.", ".mlp.c_proj."),
)
CONDITIONER: Rules = (
    (r"^null_image$", "cf_param"),
    (r"^text_embed\.", "text_feat_proj."),
    (r"^image_embed\.", "clip_emb."),
    (r"^image_tokens\.", "clip_tok_proj."),
    (r"^text_tokens\.", "text_seq_proj.0."),
    (r"^text_norm\.", "text_seq_proj.1."),
)
_BLOCK: Rules = (
    (r"^norm1\.", "in_layers.0."),
    (r"^conv1\.", "in_layers.2."),
    (r"^time_proj\.", "emb_layers.1."),
    (r"^norm2\.", "out_layers.0."),
    (r"^conv2\.", "out_layers.3."),
    (r"^skip\.", "skip_connection."),
    (r"^to_[qkv]\.", "qkv."),
    (r"^context_[kv]\.", "encoder_kv."),
    (r"^to_out\.", "proj_out."),
)
_ENDS: Rules = (
    (r"^time_embed\.linear1\.", "time_embed.0."),
    (r"^time_embed\.linear2\.", "time_embed.2."),
    (r"^stem\.", "input_blocks.0.0."),
    (r"^out_norm\.", "out.0."),
    (r"^out_conv\.", "out.2."),
)
_OPENAI_BLOCK: Rules = (
    (r"^blocks\.", "transformer.resblocks."),
    (r"\.norm([12])\.", r".ln_\1."),
    (r"\.to_[qkv]\.", ".attn.in_proj_"),
    (r"\.to_out\.", ".attn.out_proj."),
    (r"\.mlp_in\.", ".mlp.c_fc."),
    (r"\.mlp_out\.", ".mlp.c_proj."),
)
OPENAI_TEXT: Rules = (
    *_OPENAI_BLOCK,
    (r"^tokens\.", "token_embedding."),
    (r"^positions$", "positional_embedding"),
    (r"^norm_out\.", "ln_final."),
    (r"^project\.weight$", "text_projection"),
)
OPENAI_VISION: Rules = (
    *_OPENAI_BLOCK,
    (r"^patches\.", "conv1."),
    (r"^class_token$", "class_embedding"),
    (r"^positions$", "positional_embedding"),
    (r"^norm_in\.", "ln_pre."),
    (r"^norm_out\.", "ln_post."),
    (r"^project\.weight$", "proj"),
    (r"^", "visual."),
)


def prior_key_map(head_dim: int) -> Callable[[str], CheckpointKey]:
    """Locate a key of the prior; CLIP's statistics keep their name, they come from another file."""

    def key_map(key: str) -> CheckpointKey:
        if key in ("clip_mean", "clip_std"):
            return CheckpointKey(key)
        return _interleaved(key, f"model.{renamed(key, PRIOR)}", head_dim)

    return key_map


def conditioner_key_map(key: str) -> CheckpointKey:
    """Locate a key of the decoder's conditioner."""
    return CheckpointKey(f"model.{renamed(key, CONDITIONER)}")


def unet_key_map(params: UNetParams, prefix: str) -> Callable[[str], CheckpointKey]:
    """Locate a key of a UNet under `prefix` ("model.", "model_first_steps.", "model_last_step.")."""
    entries, exits = _first_numbers(params)

    def key_map(key: str) -> CheckpointKey:
        found = re.match(r"(?:(down|up)\.(\d+)|middle)\.(blocks|attentions|resample)\.(?:(\d+)\.)?(.*)", key)
        if not found:
            return CheckpointKey(prefix + renamed(key, _ENDS))
        way, level, kind, number, rest = found.groups()
        index = int(number or 0)
        if way is None:
            place = f"middle_block.{_middle_slot(params, kind, index)}"
        elif way == "down":
            index = params.blocks[int(level)] if kind == "resample" else index
            place = f"input_blocks.{entries[int(level)] + index}.{int(kind == 'attentions')}"
        else:
            place = _exit(params, exits[int(level)], len(params.channels) - 1 - int(level), kind, index)
        linear = kind == "attentions" and rest.endswith(".weight") and not rest.startswith("norm.")
        return _interleaved(key, f"{prefix}{place}.{renamed(rest, _BLOCK)}", params.head_dim, squeeze=linear)

    return key_map


def openai_key_map(rules: Rules) -> Callable[[str], CheckpointKey]:
    """Locate a key of a CLIP tower in OpenAI's checkpoint."""

    def key_map(key: str) -> CheckpointKey:
        place = renamed(key, rules)
        found = re.search(r"\.to_([qkv])\.", key)
        if found:
            return CheckpointKey(place, part="qkv".index(found[1]), parts=3, stacked=True)
        return CheckpointKey(place, transpose=key == "project.weight")

    return key_map


def _interleaved(key: str, place: str, head_dim: int, squeeze: bool = False) -> CheckpointKey:
    """Locate a projection that is stored together with others of the same attention, interleaved by head."""
    found = re.search(r"\b(to|context)_([qkv])\.", key)
    if not found:
        return CheckpointKey(place, squeeze=squeeze)
    sisters = "qkv" if found[1] == "to" else "kv"
    return CheckpointKey(place, part=sisters.index(found[2]), parts=len(sisters), head_dim=head_dim, squeeze=squeeze)


def _first_numbers(params: UNetParams) -> tuple[list[int], list[int]]:
    """Number of the first input block of each level, and of the first output block of each level on the way up."""
    entries, exits = [1], [0]
    for count in params.blocks[:-1]:
        entries.append(entries[-1] + count + 1)
    for count in params.blocks[:0:-1]:
        exits.append(exits[-1] + count + 1)
    return entries, exits


def _middle_slot(params: UNetParams, kind: str, index: int) -> int:
    """Return the index in the middle: block, attention, block, where there is attention; else block, block."""
    return 2 * index + (kind == "attentions") if params.mid_attention else index


def _exit(params: UNetParams, first: int, level: int, kind: str, index: int) -> str:
    """Return the index on the way up: block, attention, and behind a level's last block the upsampling."""
    if kind == "resample":
        return f"output_blocks.{first + params.blocks[level]}.{2 if params.attention[level] else 1}"
    return f"output_blocks.{first + index}.{int(kind == 'attentions')}"
