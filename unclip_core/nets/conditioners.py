"""The conditioners that a file can name."""

from collections.abc import Mapping
from typing import Any

from .conditioning import ConditionerParams
from .image_conditioner import ImageConditionerParams
from .map_conditioner import MapConditionerParams
from .map_token_conditioner import MapTokenConditionerParams
from .params import params_from_dict
from .token_conditioner import TokenConditionerParams

CONDITIONERS: dict[str, Any] = {
    cls.kind: cls
    for cls in (TokenConditionerParams, MapConditionerParams, MapTokenConditionerParams, ImageConditionerParams)
}
"""Params of conditioners by the kind that files name; `register_conditioner` adds to them."""


def register_conditioner(params: Any) -> Any:
    """Let files name a further kind of conditioner, by its params' `kind`; a class decorator."""
    CONDITIONERS[params.kind] = params
    return params


def conditioner_params_from_dict(config: Mapping[str, Any]) -> ConditionerParams:
    """Read the params of a conditioner.

    Args:
        config: the params' fields, and their "kind", one of `CONDITIONERS`.

    Raises:
        ValueError: the kind is another, keys are unknown or missing, or a value is bad.
    """
    fields = dict(config) if isinstance(config, Mapping) else {}
    kind = fields.pop("kind", None)
    if not isinstance(kind, str) or kind not in CONDITIONERS:
        raise ValueError(f"conditioner: kind must be one of {sorted(CONDITIONERS)}, got {kind!r}")
    return params_from_dict(CONDITIONERS[kind], fields)
