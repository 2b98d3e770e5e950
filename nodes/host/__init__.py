"""The host: the only package that touches ComfyUI, and what stands in for it where there is none.

Every import of ComfyUI sits inside a function behind `in_comfyui()`. Without ComfyUI the same functions work with
plain torch (devices), tqdm (progress) and the log (warnings), so that every node runs headless.

What it needs of ComfyUI, and all that it needs:

- `folder_paths`: `models_dir`, `add_model_folder_path`, `get_folder_paths`, of LoRAs `get_filename_list` and
  `get_full_path_or_raise` (`folders`), the input and output folders (`files`).
- `comfy.model_management`: devices, dtypes, `load_models_gpu`, `minimum_inference_memory`, `is_oom`,
  `soft_empty_cache`, `current_loaded_models`, `free_memory`, the interrupt (`memory`).
- `comfy.model_patcher.ModelPatcher`: optional; without it weights are moved by hand (`memory`).
- `comfy.utils.ProgressBar`; optional: `latent_preview` for the preview setting (`progress_bar`).
- of its `CLIP`: `cond_stage_model` with `clip_l`, `clip_h`, `clip_g`, their `set_clip_options` and `encode`; of its
  `CLIP_VISION`: `encode_image`, `model`, `patcher` (`stock_clip`).

`abilities.announce` says at load which ComfyUI was found, and which of the optional ones it lacks.
"""

from .abilities import announce, in_comfyui
from .files import input_folders, output_folder, working_in
from .folders import (
    BUNDLED,
    FOLDER_KEY,
    FOLDER_VARIABLE,
    LORA_VARIABLE,
    lora_names,
    lora_path,
    model_names,
    model_path,
    register_model_folder,
)
from .memory import (
    adapted,
    device,
    free_cache,
    intermediate_device,
    is_out_of_memory,
    loaded,
    loaded_together,
    manage,
    running_on,
    seeing,
    tell_precision,
    text_encoder_device,
    weight_dtype,
)
from .node_messages import with_text, with_warnings
from .oom_retry import halving, run_in_chunks
from .preview_budget import PreviewBudget
from .progress_bar import OnStep, Progress, ToImages, check_interrupt, preview_image, progress, wants_preview
from .stock_clip import (
    choose_tower,
    read_images,
    read_texts,
    read_zero_picture,
    text_projection,
    token_rows,
    vision_projection,
)

__all__ = [
    "BUNDLED",
    "FOLDER_KEY",
    "FOLDER_VARIABLE",
    "LORA_VARIABLE",
    "OnStep",
    "PreviewBudget",
    "Progress",
    "ToImages",
    "adapted",
    "announce",
    "check_interrupt",
    "choose_tower",
    "device",
    "free_cache",
    "in_comfyui",
    "run_in_chunks",
    "running_on",
    "input_folders",
    "intermediate_device",
    "halving",
    "is_out_of_memory",
    "loaded",
    "loaded_together",
    "lora_names",
    "lora_path",
    "manage",
    "model_names",
    "model_path",
    "output_folder",
    "preview_image",
    "progress",
    "read_images",
    "read_texts",
    "read_zero_picture",
    "register_model_folder",
    "seeing",
    "tell_precision",
    "text_encoder_device",
    "text_projection",
    "token_rows",
    "vision_projection",
    "wants_preview",
    "weight_dtype",
    "with_text",
    "with_warnings",
    "working_in",
]
