"""Map our keys to those of Kandinsky's checkpoints; prior, towers and most of the UNet have Karlo's names."""

from ..karlo.names import UNET, Rules

__all__ = ["CONDITIONER", "MOVQ", "UNET"]

CONDITIONER: Rules = (
    (r"^tokens\.", "encoder_hid_proj.image_embeds."),
    (r"^tokens_norm\.", "encoder_hid_proj.norm."),
    (r"^embed\.", "add_embedding.image_proj."),
    (r"^embed_norm\.", "add_embedding.image_norm."),
    (r"^hint\.", "add_embedding.input_hint_block."),
)
"""These stand in the UNet's own file."""

MOVQ: Rules = (
    (r"^to_code\.", "quant_conv."),
    (r"^from_code\.", "post_quant_conv."),
    (r"^codebook\.codes\.", "quantize.embedding."),
    (r"\.stem\.", ".conv_in."),
    (r"\.head\.norm\.", ".conv_norm_out."),
    (r"\.head\.conv\.", ".conv_out."),
    (r"\.middle\.", ".mid_block."),
    (r"^encoder\.levels\.(\d+)\.", r"encoder.down_blocks.\1."),
    (r"^decoder\.levels\.(\d+)\.", r"decoder.up_blocks.\1."),
    (r"^encoder(.*)\.resample\.", r"encoder\1.downsamplers.0."),
    (r"^decoder(.*)\.resample\.", r"decoder\1.upsamplers.0."),
    (r"\.blocks\.", ".resnets."),
    (r"\.skip\.", ".conv_shortcut."),
    (r"\.to_out\.", ".to_out.0."),
    (r"^encoder(.*\.attentions\.\d+)\.norm\.", r"encoder\1.group_norm."),
    (r"^decoder(.*\.attentions\.\d+)\.norm\.", r"decoder\1.spatial_norm."),
    (r"^(decoder.*(?:norm1|norm2|spatial_norm|conv_norm_out))\.norm\.", r"\1.norm_layer."),
    (r"^(decoder.*(?:norm1|norm2|spatial_norm|conv_norm_out))\.scale\.", r"\1.conv_y."),
    (r"^(decoder.*(?:norm1|norm2|spatial_norm|conv_norm_out))\.shift\.", r"\1.conv_b."),
)
