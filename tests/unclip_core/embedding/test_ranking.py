"""Ranking by cosine with the text, by hand."""

import pytest
import torch

from unclip.unclip_core.embedding.ranking import rank

EAST, NORTH = [1.0, 0.0], [0.0, 1.0]
EMBEDS = torch.tensor([NORTH, [3.0, 3.0], EAST, EAST, NORTH, [2.0, 0.0]])
TEXTS = torch.tensor([EAST, NORTH])


def test_scores_are_the_cosines_and_the_best_comes_first():
    ranking = rank(EMBEDS, TEXTS, keep=2)
    torch.testing.assert_close(ranking.scores, torch.tensor([[0.0, 0.5**0.5, 1.0], [0.0, 1.0, 0.0]]))
    assert ranking.order.tolist() == [[2, 1, 0], [1, 0, 2]]  # of equals the earlier first
    assert ranking.rows.tolist() == [2, 1, 4, 3]
    assert rank(EMBEDS, TEXTS, keep=3).rows.tolist() == [2, 1, 0, 4, 3, 5]


@pytest.mark.parametrize(
    ("count", "keep", "words"), [(5, 1, "shared out"), (6, 4, "keep 4 of 3"), (6, 0, "keep 0 of 3"), (0, 1, "of 0")]
)
def test_uneven_shares_and_impossible_numbers_are_refused(count, keep, words):
    with pytest.raises(ValueError, match=words):
        rank(EMBEDS[:count], TEXTS, keep)
