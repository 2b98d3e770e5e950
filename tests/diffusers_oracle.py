"""diffusers' networks as oracles: random small ones, and their weights under our names."""

import re

RESNET = [
    (r"\btime_emb_proj\b", "time_proj"),
    (r"\bconv_shortcut\b", "skip"),
    (r"\bgroup_norm\b", "norm"),
    (r"\badd_([kv])_proj\b", r"context_\1"),
    (r"\bto_out\.0\b", "to_out"),
    (r"\bresnets\b", "blocks"),
    (r"\b(down|up)samplers\.0\b", "resample"),
    (r"^(down|up)_blocks\b", r"\1"),
    (r"^mid_block\b", "middle"),
    (r"^time_embedding\.linear_", "time_embed.linear"),
    (r"^conv_in\b", "stem"),
    (r"^conv_norm_out\b", "out_norm"),
    (r"^conv_out\b", "out_conv"),
]
PRIOR = [
    (r"^time_embedding\.linear_", "time_embed.linear"),
    (r"^proj_in\b", "image_in"),
    (r"^embedding_proj\b", "text_embed_in"),
    (r"^encoder_hidden_states_proj\b", "text_states_in"),
    (r"^positional_embedding$", "positions"),
    (r"^prd_embedding$", "query"),
    (r"^proj_to_clip_embeddings\b", "image_out"),
    (r"^transformer_blocks\b", "blocks"),
    (r"\battn1\.to_out\.0\b", "to_out"),
    (r"\battn1\.", ""),
    (r"\bnorm3\b", "norm2"),
    (r"\bff\.net\.0\.proj\b", "mlp_in"),
    (r"\bff\.net\.2\b", "mlp_out"),
]
TEXT_PROJ = [
    (r"^learned_classifier_free_guidance_embeddings$", "null_image"),
    (r"^embedding_proj\b", "text_embed"),
    (r"^clip_image_embeddings_project_to_time_embeddings\b", "image_embed"),
    (r"^clip_extra_context_tokens_proj\b", "image_tokens"),
    (r"^encoder_hidden_states_proj\b", "text_tokens"),
    (r"^text_encoder_hidden_states_norm\b", "text_norm"),
]


def rename(state, table):
    """State dict under our names, by regular expressions applied in order."""
    renamed = {}
    for key, value in state.items():
        for pattern, by in table:
            key = re.sub(pattern, by, key)
        renamed[key] = value
    assert len(renamed) == len(state)
    return renamed
