"""Devices, dtypes and memory: a model's parts under ComfyUI's model management, or moved by hand without it.

Each part has one patcher. A stage runs inside `with host.loaded(value) as part:`, which asks ComfyUI to load the part;
ComfyUI unloads it by its own rules when something else needs the room.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import torch

from ...unclip_core.lora import delta
from ...unclip_core.models import Clip
from ...unclip_core.nets import step_graphs
from ...unclip_core.weights import devices, files
from ...unclip_core.weights.computing import tell_computing
from ..sockets import LateValue, Part, PartValue
from .abilities import has, in_comfyui

DTYPES = {name: files.DTYPES[name] for name in ("fp16", "bf16", "fp32")}
"""What the loader offers beside "auto", in the order in which ComfyUI prefers them where the device can."""


EVERYTHING = 1e30
"""Bytes: more than any device has, ComfyUI's own number for unloading all that it may."""


_DEVICE: ContextVar[str] = ContextVar("device", default=devices.AUTO)


_IN_STAGE: ContextVar[tuple[Any, ...]] = ContextVar("in_stage", default=())
"""ComfyUI's patchers of the parts that the stage under way computes with."""


@contextmanager
def running_on(name: str) -> Iterator[torch.device]:
    """Without ComfyUI: the device that the nets run on while the context lasts, by its name, or "auto".

    Raises:
        ValueError: this machine has no such device.
    """
    chosen = devices.choose_device(name)
    token = _DEVICE.set(str(chosen))
    try:
        yield chosen
    finally:
        _DEVICE.reset(token)


def device() -> torch.device:
    """Return the device on which the nets run."""
    if in_comfyui():
        from comfy import model_management

        return model_management.get_torch_device()
    return devices.choose_device(_DEVICE.get())


def intermediate_device() -> torch.device:
    """Return the device on which the values of sockets are kept."""
    if in_comfyui():
        from comfy import model_management

        return model_management.intermediate_device()
    return torch.device("cpu")


def weight_dtype(choice: str, parameters: int, text_encoder: bool = False) -> torch.dtype:
    """Return the dtype of a part's weights, in which it also computes: the one chosen, or for "auto" ComfyUI's.

    Without ComfyUI "auto" is what `devices.own_dtype` says of the device. `parameters` is their number in the part, by
    which ComfyUI decides.
    """
    if choice in DTYPES:
        return DTYPES[choice]
    if not in_comfyui():
        return devices.own_dtype(device())
    from comfy import model_management

    place = _home(text_encoder)[0]
    if place.type == "cpu":
        return torch.float32  # ComfyUI stores text encoders in fp16 there, but casts each layer as it runs
    if text_encoder:
        dtype = model_management.text_encoder_dtype(place)
    else:
        dtype = model_management.unet_dtype(place, parameters, list(DTYPES.values()))
    # What ComfyUI would store in one dtype and compute in another, our plain layers hold in the latter.
    dtype = model_management.unet_manual_cast(dtype, place, list(DTYPES.values())) or dtype
    return dtype if dtype in DTYPES.values() else torch.float32


def text_encoder_device() -> torch.device:
    """Return the device on which text encoders run."""
    return _home(True)[0] if in_comfyui() else device()


def tell_precision(choice: str) -> None:
    """Log it where the dtype that was chosen is not what parts compute in: the processor has no instructions for it."""
    if choice not in DTYPES:
        return  # "auto" chooses none of those
    places = {text_encoder_device(), device()}
    for place in sorted(places, key=str):
        tell_computing(DTYPES[choice], place)


def manage(part: Part) -> PartValue[Part]:
    """Wrap a core part for the sockets; in ComfyUI its network is put under ComfyUI's memory management."""
    if not has("memory management"):
        return PartValue(part)
    from comfy.model_patcher import ModelPatcher

    # Not the CoreModelPatcher that ComfyUI swaps for a dynamic one: that leaves plain torch layers on the device
    # when another dynamic model needs the room. This one loads them in full and unloads them in full.
    load_device, offload_device = _home(isinstance(part, Clip))
    return PartValue(part, ModelPatcher(part.module, load_device=load_device, offload_device=offload_device))


def _home(text_encoder: bool) -> tuple[torch.device, torch.device]:
    """Return ComfyUI's load and offload devices, of a text encoder or of any other net."""
    from comfy import model_management

    if text_encoder:
        return model_management.text_encoder_device(), model_management.text_encoder_offload_device()
    return device(), model_management.unet_offload_device()


@contextmanager
def loaded(value: PartValue[Part]) -> Iterator[Part]:
    """Give the core part of `value`, with all of its weights on the device where it runs, while the context lasts."""
    with loaded_together(value) as (part,):
        yield part


@contextmanager
def loaded_together(*values: PartValue[Any]) -> Iterator[tuple[Any, ...]]:
    """Give the core parts of several `values`, all loaded at once, for a stage that needs them together."""
    values = tuple(value.value if isinstance(value, LateValue) else value for value in values)
    bases = tuple(value.base or value for value in values)
    changed_bytes = sum(delta.changed_bytes(value.base.part.net, value.changes) for value in values if value.base)
    _ask_for(bases, changed_bytes + sum(_size(base) for base in bases if base.patcher is None))
    patchers = tuple(base.patcher for base in bases if base.patcher is not None)
    token = _IN_STAGE.set(_IN_STAGE.get() + patchers)
    try:
        for base in bases:
            # ComfyUI ignores `force_full_load` under --novram; where it has done its work this moves nothing.
            base.part.module.to(_load_device(base))
        with ExitStack() as changed:
            if any(value.changes for value in values):
                changed.enter_context(step_graphs.not_recorded())
            for value in values:
                if value.base is not None:
                    changed.enter_context(delta.filled(value.part.net, value.base.part.net, value.changes))
            yield tuple(value.part for value in values)
    finally:
        _IN_STAGE.reset(token)
        if not _weights_stay():
            step_graphs.GRAPHS.release(*(value.part.module for value in bases))
        _put_back(bases)


def seeing(value: PartValue[Clip] | LateValue[Clip]) -> PartValue[Clip]:
    """Return a CLIP with its image encoder read, for a stage that looks at images.

    Where that is read late, it comes in under a patcher that has measured the text encoder alone. So its weights are
    read where those wait that are not in use, and are measured anew: ComfyUI makes room for all of it.
    """
    value = value.value if isinstance(value, LateValue) else value
    if value.part.adapter.vision_is_late:
        if value.patcher is not None:
            value.patcher.detach()
            value.patcher.size = 0  # ComfyUI's word for "not measured yet"
        value.part.adapter.read_vision()
    return value


def _ask_for(values: Sequence[PartValue[Any]], beside: int) -> None:
    """Have ComfyUI load the parts that it manages, with room for `beside` bytes of other weights."""
    patchers = [value.patcher for value in values if value.patcher is not None]
    if not patchers:
        return
    from comfy import model_management

    # In full: under partial loading plain torch layers would stay on the CPU unnoticed.
    room = {"memory_required": model_management.minimum_inference_memory() + beside} if beside else {}
    model_management.load_models_gpu(patchers, force_full_load=True, **room)


def adapted(value: PartValue[Part] | LateValue[Part], adapter: delta.Lora, strength: float) -> PartValue[Part]:
    """`value` with a LoRA, which is added to its weights whenever `loaded`; `value` itself stays as it is.

    Its weights are those of `value`, under the same patcher: they are in memory once. Those that the LoRA changes are
    there a second time while a stage runs, and ComfyUI is asked for that room.

    Raises:
        CheckpointError: the LoRA does not fit.
    """
    value = value.value if isinstance(value, LateValue) else value
    base = value.base or value
    delta.check_fits(adapter, base.part)
    part = replace(base.part, net=delta.shared_copy(base.part.net))
    return PartValue(part, base.patcher, (*value.changes, (adapter, strength)), base)


def _size(value: PartValue[Any]) -> int:
    return sum(tensor.nbytes for tensor in value.part.module.state_dict().values())


def _load_device(value: PartValue[Any]) -> torch.device:
    return device() if value.patcher is None else value.patcher.load_device


def _weights_stay() -> bool:
    """Whether weights stay on the device between stages, so that recorded steps serve the next run, too."""
    if not in_comfyui():
        return False
    from comfy import model_management

    state = getattr(model_management, "vram_state", None)
    return getattr(state, "name", "") == "HIGH_VRAM"


def _put_back(values: Sequence[PartValue[Any]]) -> None:
    """Move parts off the device that ComfyUI would not unload: those without a patcher, or not loaded by theirs."""
    for value in values:
        if value.patcher is None:
            value.part.module.to("cpu")
        elif value.patcher.loaded_size() < value.patcher.model_size():
            value.part.module.to(value.patcher.offload_device)


def is_out_of_memory(error: Exception) -> bool:
    """Tell whether `error` is an out-of-memory error of the accelerator."""
    if in_comfyui():
        from comfy import model_management

        return model_management.is_oom(error)
    return devices.is_out_of_memory(error)


def others_loaded() -> list[Any]:
    """Return what ComfyUI has loaded, as its `LoadedModel`s, on the devices of the stage under way and not for it."""
    return [loaded for loaded in _loaded_models() if not _is_of_stage(loaded) and loaded.device in _stage_devices()]


def unload_others() -> None:
    """Have ComfyUI unload `others_loaded`: it made room for a stage's weights, not for what the stage computes."""
    from comfy import model_management

    kept = [loaded for loaded in _loaded_models() if _is_of_stage(loaded)]
    for place in _stage_devices():
        model_management.free_memory(EVERYTHING, place, keep_loaded=kept)


def _loaded_models() -> list[Any]:
    if not in_comfyui():
        return []
    from comfy import model_management

    return [loaded for loaded in model_management.current_loaded_models if loaded.model is not None]


def _is_of_stage(loaded: Any) -> bool:
    return any(loaded.model is patcher for patcher in _IN_STAGE.get())


def _stage_devices() -> set[torch.device]:
    return {patcher.load_device for patcher in _IN_STAGE.get()} or {device()}


def free_cache() -> None:
    """Give unused memory back to the accelerator, that of recorded steps too."""
    step_graphs.GRAPHS.release()
    if in_comfyui():
        from comfy import model_management

        model_management.soft_empty_cache()
    else:
        devices.free_cache(device())
