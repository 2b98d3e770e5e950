"""The decoder: a conditioner and a UNet, joined by a Condition."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .conditioners import conditioner_params_from_dict
from .conditioning import Condition, ConditionerParams
from .layers import Times
from .params import check_keys, params_from_dict, params_to_dict, require_positive
from .unet import UNet
from .unet_params import UNetParams


@dataclass(frozen=True)
class DecoderParams:
    """Shape of a decoder; `image_size` is the side of the square images, or latents, that its UNet was trained on."""

    conditioner: ConditionerParams
    unet: UNetParams
    image_size: int = 64

    def __post_init__(self) -> None:
        """Check that conditioner and UNet fit; raises ValueError stating the numbers that disagree."""
        cond, unet = self.conditioner, self.unet
        require_positive("DecoderParams", image_size=self.image_size)
        if cond.time_embed_dim != unet.time_embed_dim:
            raise ValueError(
                f"DecoderParams: conditioner.time_embed_dim {cond.time_embed_dim} is not "
                f"unet.time_embed_dim {unet.time_embed_dim}"
            )
        if cond.context_width != unet.context_dim:
            raise ValueError(
                f"DecoderParams: conditioner.context_dim {cond.context_width} is not "
                f"unet.context_dim {unet.context_dim}"
            )
        self._check_maps()

    def _check_maps(self) -> None:
        maps = self.conditioner.maps or ((0, 0),) * len(self.unet.channels)
        given = tuple(channels for channels, _ in maps)
        if given != self.unet.map_channels:
            raise ValueError(
                f"DecoderParams: conditioner.map_channels {given} are not unet.map_channels {self.unet.map_channels}"
            )
        for level, (channels, size) in enumerate(maps):
            side = self.image_size // (self.unet.patch_size * 2**level)
            if channels and size != side:
                raise ValueError(
                    f"DecoderParams: level {level} of an image of side {self.image_size} has side {side}, "
                    f"conditioner.map_sizes says {size}"
                )

    def to_dict(self) -> dict[str, Any]:
        """Return the params as a dict that JSON can hold."""
        return {
            "conditioner": {"kind": self.conditioner.kind} | params_to_dict(self.conditioner),
            "unet": params_to_dict(self.unet),
            "image_size": self.image_size,
        }

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "DecoderParams":
        """Read what to_dict wrote.

        Raises:
            ValueError: unknown or missing keys, or bad values.
        """
        check_keys(cls, config)
        conditioner = conditioner_params_from_dict(config["conditioner"])
        rest = {key: value for key, value in config.items() if key not in ("conditioner", "unet")}
        return cls(conditioner, params_from_dict(UNetParams, config["unet"]), **rest)


class DecoderNet(nn.Module):
    """(noisy image, time, Condition) -> raw output; the Condition is computed once a run, not once a step."""

    def __init__(self, params: DecoderParams) -> None:
        """Build conditioner and UNet."""
        super().__init__()
        self.params = params
        self.conditioner = params.conditioner.build()
        self.unet = UNet(params.unet)

    def condition(
        self,
        image_embeds: Tensor,
        text_embeds: Tensor | None = None,
        text_states: Tensor | None = None,
        text_mask: Tensor | None = None,
        drop_image: Tensor | None = None,
        drop_text: Tensor | None = None,
    ) -> Condition:
        """Compute the UNet's `Condition` of embeddings `[B, D]` and text; arguments as of `Conditioner`."""
        return self.conditioner(image_embeds, text_embeds, text_states, text_mask, drop_image, drop_text)

    def null_condition(
        self,
        count: int,
        text_embeds: Tensor | None = None,
        text_states: Tensor | None = None,
        text_mask: Tensor | None = None,
    ) -> Condition:
        """Compute the unconditional `Condition`: no image embedding, and no text.

        Args:
            count: number of images.
            text_embeds: `[count, D]` of the empty prompt, for a conditioner that needs a text and so has learned no
                "no text"; None takes the learned one.
            text_states: `[count, T, W]`, likewise.
            text_mask: `[count, T]` bool, likewise.

        Raises:
            ValueError: as the conditioner does.
        """
        null = self.conditioner.null_image
        drop = torch.ones(count, dtype=torch.bool, device=null.device)
        blank = null.detach().new_zeros(count, len(null))
        return self.conditioner(blank, text_embeds, text_states, text_mask, drop_image=drop)

    def prepare(self, condition: Condition) -> Condition:
        """Replace the context by what all steps of a run share of it.

        "context" `[B, S, W]` becomes each attention's keys and values, "context_keys.<slot>" and
        "context_values.<slot>" `[B, S, C]`; "context_mask" becomes "context_bias" `[B, S]`. The rest stays as it is.
        """
        ready = {key: value for key, value in condition.items() if key not in ("context", "context_mask")}
        if "context" not in condition:
            return ready
        read, bias = self.unet.read_context(condition["context"], condition.get("context_mask"))
        for slot, (keys, values) in read.items():
            ready |= {f"context_keys.{slot}": keys, f"context_values.{slot}": values}
        return ready if bias is None else ready | {"context_bias": bias}

    @property
    def needs_text(self) -> bool:
        """Whether condition() and null_condition() cannot do without a text."""
        return self.conditioner.needs_text

    @property
    def reads_text(self) -> bool:
        """Whether a text makes a difference to what is drawn."""
        return self.conditioner.reads_text

    def forward(self, x: Tensor, t: Tensor, condition: Condition, times: Times | None = None) -> Tensor:
        """Run the UNet under a condition.

        Args:
            x: `[B, C, H, W]`.
            t: `[B]` timesteps.
            condition: a `Condition`, or what `prepare` made of one.
            times: the embeddings of the run's timesteps, where they were computed beforehand.

        Returns:
            `[B, out_channels, H, W]`.
        """
        keys, values = _numbered(condition, "context_keys."), _numbered(condition, "context_values.")
        if "beside" in condition:
            x = torch.cat([x, condition["beside"].to(x)], dim=1)
        return self.unet(
            x,
            t,
            embed=condition.get("embed"),
            context=condition.get("context"),
            context_mask=condition.get("context_mask"),
            maps=_numbered(condition, "maps."),
            context_read={slot: (keys[slot], values[slot]) for slot in keys} or None,
            context_bias=condition.get("context_bias"),
            times=times,
        )


def _numbered(condition: Condition, prefix: str) -> dict[int, Tensor]:
    """The tensors whose keys are the prefix and a number, by that number."""
    return {int(key[len(prefix) :]): value for key, value in condition.items() if key.startswith(prefix)}
