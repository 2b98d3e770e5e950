"""An output of Pick whose input is left open hands on None: every node that needs a value there says so in words."""

import pytest
import torch

from unclip import NODE_CLASS_MAPPINGS
from unclip.nodes import host
from unclip.nodes.inputs import InputError
from unclip.nodes.pick import UnclipPick
from unclip.nodes.sockets import BasisValue, EmbeddingValue
from unclip.unclip_core.embedding.pca import fit_basis

PICKED = {"UNCLIP_EMBEDDING": "embedding", "IMAGE": "image"}


def kind_of(declared):
    return declared[0].split(",")[0] if isinstance(declared[0], str) else "COMBO"


def needed(node):
    return {name: kind_of(declared) for name, declared in node.INPUT_TYPES()["required"].items()}


NEEDS = [
    (node_id, name)
    for node_id, node in NODE_CLASS_MAPPINGS.items()
    for name, kind in needed(node).items()
    if kind in PICKED
]


def test_these_are_the_nodes_that_need_one():
    assert (
        len(NEEDS) == 26
        and ("UnclipEmbeddingSimilarity", "a") in NEEDS
        and ("UnclipSaveEmbedding", "embedding") in NEEDS
    )


@pytest.mark.parametrize(("node_id", "name"), NEEDS)
def test_what_pick_does_not_hand_on_is_named_with_the_input_to_link(mine, tmp_path, node_id, name):
    node = NODE_CLASS_MAPPINGS[node_id]
    embedding = EmbeddingValue(torch.randn(4, 16, generator=torch.Generator().manual_seed(1)), "test", "image")
    text = NODE_CLASS_MAPPINGS["UnclipTextEncode"]().run(mine.clip, "a red circle")["result"][0]
    values = {
        "UNCLIP_CLIP": mine.clip, "UNCLIP_PRIOR": mine.prior, "UNCLIP_DECODER": mine.decoder,
        "UNCLIP_UPSCALER": mine.upsampler, "UNCLIP_TEXT": text, "UNCLIP_EMBEDDING": embedding,
        "UNCLIP_BASIS": BasisValue(fit_basis(embedding.embeds), "test"), "IMAGE": torch.rand(1, 16, 16, 3),
        "MASK": torch.ones(1, 16, 16), "CLIP_VISION": None,
    }  # fmt: skip
    given = {key: values[kind] for key, kind in needed(node).items() if kind in values}
    embedding_alone, image_alone = (
        UnclipPick().run("0", **{kind: values[socket]})["result"] for kind, socket in
        (("embedding", "UNCLIP_EMBEDDING"), ("image", "IMAGE"))
    )  # fmt: skip
    kind = needed(node)[name]
    given[name] = embedding_alone[0] if kind == "IMAGE" else image_alone[1]
    with host.working_in(tmp_path, (tmp_path,)), pytest.raises(InputError) as caught:
        getattr(node(), node.FUNCTION)(**given)
    assert f"nothing is linked to Pick's input '{PICKED[kind]}'" in str(caught.value)
