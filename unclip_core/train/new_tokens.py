"""Where the embeddings of new tokens begin: where other captions of the same images put them.

A caption that a CLIP knows all tokens of says in its embeddings what another caption of the same image has to say in
new ones. Of all such pairs the new embeddings are found by ridge regression, the sum of a caption's embeddings taken
for what it says. That is exact where one word stands for one word, and a good beginning elsewhere.
"""

from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor

from ..clip.open_clip_adapter import OpenClipAdapter
from ..data.samples import BadSample, Collection
from .clip_target import token_table

MOST_CAPTIONS = 250_000
RIDGE, ROUNDS = 0.3, 40
"""Weight of the embeddings' squares against a caption's error, and rounds of conjugate gradients."""
Row = tuple[list[int], Tensor]
"""The new tokens of a caption, and the sum `[W]` that their embeddings should have."""


@torch.no_grad()
def fit_new_tokens(clip: OpenClipAdapter, known: Tensor, collection: Collection) -> int:
    """Give the tokens that are not `known` `[V]` embeddings by regression; returns how many captions it is of.

    Tokens that no such caption holds keep theirs. Of images of one caption nothing is learned.
    """
    table = token_table(clip.model).weight
    rows = list(islice(_rows(clip, known, table, collection), MOST_CAPTIONS))
    if not rows:
        return 0
    sums = torch.stack([wanted for _, wanted in rows])
    pairs = torch.tensor([(row, token) for row, (tokens, _) in enumerate(rows) for token in tokens]).T
    shape = (len(rows), len(table))
    counts = torch.sparse_coo_tensor(pairs, torch.ones(pairs.shape[1]), shape, check_invariants=True).coalesce()
    met = pairs[1].unique()
    table[met] = ridge(counts, sums)[met].to(table)
    return len(rows)


def _rows(clip: OpenClipAdapter, known: Tensor, table: Tensor, collection: Collection) -> Iterator[Row]:
    learned = known.tolist()
    for index in range(len(collection)):
        try:
            captions = collection.captions(index)
        except BadSample:
            continue  # training names it
        every = [clip.tokenizer.encode(caption) for caption in captions]
        read = [tokens for tokens in every if tokens and all(learned[token] for token in tokens)]
        if not read:
            continue
        wanted = torch.stack([table[tokens].sum(dim=0) for tokens in read]).mean(dim=0)
        for tokens in every:
            new = [token for token in tokens if not learned[token]]
            if new:
                yield new, wanted - table[[token for token in tokens if learned[token]]].sum(dim=0)


def ridge(counts: Tensor, sums: Tensor) -> Tensor:
    """X `[V, W]` that makes |counts X - sums|² + RIDGE |X|² least; counts sparse `[N, V]`, sums `[N, W]`."""
    forward, backward = counts.to_sparse_csr(), counts.t().coalesce().to_sparse_csr()
    found = torch.zeros(counts.shape[1], sums.shape[1])
    rest = backward @ sums
    direction, size = rest.clone(), rest.square().sum(dim=0)
    for _ in range(ROUNDS):
        image = backward @ (forward @ direction) + RIDGE * direction
        step = size / (direction * image).sum(dim=0).clamp(min=1e-20)
        found += step * direction
        rest -= step * image
        size, before = rest.square().sum(dim=0), size
        direction = rest + size / before.clamp(min=1e-20) * direction
    return found
