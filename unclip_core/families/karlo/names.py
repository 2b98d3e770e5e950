"""Map our keys to those of diffusers' and transformers' checkpoints."""

import re
from collections.abc import Callable
from functools import cache

from ...weights.key_map import CheckpointKey

Rules = tuple[tuple[str, str], ...]

UNET: Rules = (
    (r"^time_embed\.linear", "time_embedding.linear_"),
    (r"^stem\.", "conv_in."),
    (r"^out_norm\.", "conv_norm_out."),
    (r"^out_conv\.", "conv_out."),
    (r"^middle\.", "mid_block."),
    (r"^(down|up)\.(\d+)\.resample\.", r"\1_blocks.\2.\1samplers.0."),
    (r"^(down|up)\.", r"\1_blocks."),
    (r"\.blocks\.", ".resnets."),
    (r"\.time_proj\.", ".time_emb_proj."),
    (r"\.skip\.", ".conv_shortcut."),
    (r"\.norm\.", ".group_norm."),
    (r"\.context_([kv])\.", r".add_\1_proj."),
    (r"\.to_out\.", ".to_out.0."),
)
PRIOR: Rules = (
    (r"^time_embed\.linear", "time_embedding.linear_"),
    (r"^image_in\.", "proj_in."),
    (r"^text_embed_in\.", "embedding_proj."),
    (r"^text_states_in\.", "encoder_hidden_states_proj."),
    (r"^positions$", "positional_embedding"),
    (r"^query$", "prd_embedding"),
    (r"^image_out\.", "proj_to_clip_embeddings."),
    (r"^blocks\.", "transformer_blocks."),
    (r"\.to_([qkv])\.", r".attn1.to_\1."),
    (r"\.to_out\.", ".attn1.to_out.0."),
    (r"\.norm2\.", ".norm3."),
    (r"\.mlp_in\.", ".ff.net.0.proj."),
    (r"\.mlp_out\.", ".ff.net.2."),
)
TEXT_PROJECTION: Rules = (
    (r"^null_image$", "learned_classifier_free_guidance_embeddings"),
    (r"^text_embed\.", "embedding_proj."),
    (r"^image_embed\.", "clip_image_embeddings_project_to_time_embeddings."),
    (r"^image_tokens\.", "clip_extra_context_tokens_proj."),
    (r"^text_tokens\.", "encoder_hidden_states_proj."),
    (r"^text_norm\.", "text_encoder_hidden_states_norm."),
)
_TOWER: Rules = (
    (r"^blocks\.", "encoder.layers."),
    (r"\.to_([qkv])\.", r".self_attn.\1_proj."),
    (r"\.to_out\.", ".self_attn.out_proj."),
    (r"\.norm([12])\.", r".layer_norm\1."),
    (r"\.mlp_in\.", ".mlp.fc1."),
    (r"\.mlp_out\.", ".mlp.fc2."),
)
TEXT_TOWER: Rules = (
    *_TOWER,
    (r"^tokens\.", "embeddings.token_embedding."),
    (r"^positions$", "embeddings.position_embedding.weight"),
    (r"^norm_out\.", "final_layer_norm."),
    (r"^(?!project\.)", "text_model."),
    (r"^project\.", "text_projection."),
)
VISION_TOWER: Rules = (
    *_TOWER,
    (r"^patches\.", "embeddings.patch_embedding."),
    (r"^class_token$", "embeddings.class_embedding"),
    (r"^positions$", "embeddings.position_embedding.weight"),
    (r"^norm_in\.", "pre_layrnorm."),
    (r"^norm_out\.", "post_layernorm."),
    (r"^(?!project\.)", "vision_model."),
    (r"^project\.", "visual_projection."),
)


@cache
def renamed(key: str, rules: Rules) -> str:
    """Apply all `rules` (pattern, replacement) to `key`, in order."""
    for pattern, by in rules:
        key = re.sub(pattern, by, key)
    return key


def diffusers_key_map(rules: Rules) -> Callable[[str], CheckpointKey]:
    """Return a function that locates our key in a checkpoint with these names."""
    return lambda key: CheckpointKey(renamed(key, rules))
