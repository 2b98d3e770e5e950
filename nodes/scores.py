"""Rankings as lines of text, for the canvas."""

from collections.abc import Sequence

from ..unclip_core.embedding.ranking import Ranking


def scores_text(ranking: Ranking, prompts: Sequence[str]) -> str:
    """Write out each prompt's candidates with their scores, the best first, and which of them were kept."""
    lines: list[str] = []
    for prompt, scores, order in zip(prompts, ranking.scores.tolist(), ranking.order.tolist(), strict=True):
        if len(prompts) > 1:
            lines.append(f"{prompt or '(empty)'}:")
        for place, number in enumerate(order):
            lines.append(f"#{number + 1}  {scores[number]:.4f}" + ("  kept" if place < ranking.keep else ""))
    return "\n".join(lines)
