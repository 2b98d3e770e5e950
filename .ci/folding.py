"""Fold a workflow's groups into a block that a window shows whole: rows of stacks of groups, in their order."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

TITLE = 30
"""Height of a node's title bar; its `pos` is the corner below it."""
GAP = 20
"""Room between nodes, and between groups."""
SIDE, HEAD = 14, 46
"""Room in a group beside and below its nodes, and above them, where its title stands."""
WINDOW, FILL, MARGIN = (1600.0, 1000.0), 0.75, 20.0
"""A usual window, the share of it that ComfyUI fits a workflow into, and the margin that it adds."""
WIDEST, SQUAREST = 2.2, 1.0
ROWS, COLUMNS = 3, 4
"""At most so many rows in all, and so many columns in a group."""
LEGIBLE, BEST_SCALE = 0.58, 0.8
"""Zooms: below the one ComfyUI's classic canvas leaves texts out; above the other, more gains nothing."""
FULL = 0.5
"""The least share of a group's frame that its nodes take."""
EMPTY_WEIGHT, BACK_WEIGHT, SMALL_WEIGHT, NEAR = 0.25, 0.03, 10.0, 0.03
HIDDEN_WEIGHT = 10.0
STRETCH = 1.45
"""How much wider than they need to be nodes may get, to be as wide as what stands above or below them."""

Place = tuple[int, float, float, float, float]
"""`(node, x, y, width, height)`: a node's box, its title included."""


@dataclass(frozen=True)
class Node:
    """A node's id and box.

    Attributes:
        grown: the box's height with a live preview or a run's words in it.
        previewed: its height with a live preview, where the canvas draws it lower: the classic one or Vue's.
    """

    id: int
    width: float
    height: float
    grown: float
    previewed: float


@dataclass(frozen=True)
class Block:
    """A group's nodes laid out in its frame.

    Attributes:
        bottom: where they end before they grow.
        fullness: the share of the frame below its title that the nodes take with their previews.
    """

    group: int
    width: float
    height: float
    bottom: float
    fullness: float
    places: tuple[Place, ...]


@dataclass(frozen=True)
class Part:
    """Blocks side by side or one below the other: stacks of a row, or (with rows in `rows`) all.

    Attributes:
        bottom: where the nodes end before they grow.
    """

    width: float
    height: float
    bottom: float
    rows: tuple[tuple[tuple[Block, ...], ...], ...]


def fold(groups: Sequence[Sequence[Node]], titles: Sequence[float], links: Sequence[tuple[int, int]]) -> list[Block]:
    """Lay groups out, in their order, as large as the window shows them.

    Args:
        groups: each group's nodes, in their order.
        titles: the width that each group's title takes.
        links: `(from, to)` ids of the nodes of every wire.

    Returns:
        A block for each group, its places in the graph's coordinates (`frame` tells where its frame is).

    Raises:
        ValueError: no fold is between square and 2.2 : 1 with every wire to the right or down.
    """
    used = sum(node.width * node.grown for nodes in groups for node in nodes)
    rated = [(score, part) for part, cost in folds(groups, titles) for score in rating(part, used, cost)]
    rated.sort(key=lambda each: -each[0])
    forward = ((score, blocks) for score, part in rated if runs_forward(blocks := placed(part), links))
    first = next(forward, None)
    if first is None:
        raise ValueError("No fold of the groups is between square and 2.2 : 1, its wires to the right or down.")
    near = [first[1], *(blocks for _, blocks in itertools.takewhile(lambda each: each[0] >= first[0] - NEAR, forward))]
    return min(near, key=lambda blocks: wire_length(blocks, links))


def folds(groups: Sequence[Sequence[Node]], titles: Sequence[float]) -> Iterator[tuple[Part, float]]:
    """Folds, with what each costs: the last group, the result, may stand at the end of the first row."""
    options = [arrangements(index, nodes, titles[index]) for index, nodes in enumerate(groups)]
    last = len(groups)
    rows = {(a, b): row(options, a, b) for a in range(last) for b in range(a + 1, last + 1)}
    for count in range(1, ROWS + 1):
        for part in breaks(rows, 0, last, count):
            yield part, 0.0
    end = [single((block,)) for block in options[-1]]
    for first in range(1, last - 1):
        heads = [beside(head, tail) for head in rows[0, first] for tail in end]
        for count in range(1, ROWS):
            for head, below in itertools.product(heads, breaks(rows, first, last - 1, count)):
                yield above(head, below), BACK_WEIGHT


def breaks(rows: dict[tuple[int, int], list[Part]], a: int, b: int, count: int) -> list[Part]:
    """Groups a to b in so many rows: those of which none is better in every way."""
    if count == 1:
        return rows[a, b]
    cuts = range(a + 1, b - count + 2)
    return best(above(one, rest) for cut in cuts for one in rows[a, cut] for rest in breaks(rows, cut, b, count - 1))


def row(options: Sequence[Sequence[Block]], a: int, b: int) -> list[Part]:
    """Groups a to b in one row of stacks."""
    rows: dict[int, list[Part]] = {b: []}
    for start in range(b - 1, a - 1, -1):
        split = [
            beside(one, rest) for cut in range(start + 1, b) for one in stack(options, start, cut) for rest in rows[cut]
        ]
        rows[start] = best([*stack(options, start, b), *split])
    return rows[a]


def stack(options: Sequence[Sequence[Block]], a: int, b: int) -> list[Part]:
    """Groups a to b one below the other."""
    return best(single(blocks) for blocks in itertools.product(*options[a:b]))


def single(blocks: tuple[Block, ...]) -> Part:
    """A row of one stack."""
    height = sum(block.height + GAP for block in blocks) - GAP
    bottom = height - blocks[-1].height + blocks[-1].bottom
    return Part(max(block.width for block in blocks), height, bottom, ((blocks,),))


def beside(one: Part, other: Part) -> Part:
    """Two rows as one, side by side."""
    stacks = (*one.rows[0], *other.rows[0])
    height, bottom = max(one.height, other.height), max(one.bottom, other.bottom)
    return Part(one.width + GAP + other.width, height, bottom, (stacks,))


def above(one: Part, other: Part) -> Part:
    """Rows, and rows below them."""
    down = one.height + GAP
    bottom = max(one.bottom, down + other.bottom)
    return Part(max(one.width, other.width), down + other.height, bottom, (*one.rows, *other.rows))


def best(parts: Iterable[Part]) -> list[Part]:
    """Those of which no other is as narrow, as low and ends as high."""
    kept: list[Part] = []
    for part in sorted(parts, key=lambda each: (each.width, each.height, each.bottom)):
        if not any(other.height <= part.height and other.bottom <= part.bottom for other in kept):
            kept.append(part)
    return kept


def arrangements(group: int, nodes: Sequence[Node], title: float) -> list[Block]:
    """A group's nodes in columns, those whose frame is not half empty; the fullest if all are."""
    cuts = [balanced(nodes, columns) for columns in range(1, min(COLUMNS, len(nodes)) + 1)]
    blocks = [block(group, nodes, each, title) for each in cuts]
    return [each for each in blocks if each.fullness >= FULL] or [max(blocks, key=lambda each: each.fullness)]


def balanced(nodes: Sequence[Node], columns: int) -> tuple[int, ...]:
    """Where to cut the nodes into columns so that the highest is lowest."""
    every = itertools.combinations(range(1, len(nodes)), columns - 1)
    whole = ((0, *cuts, len(nodes)) for cuts in every)
    return min(whole, key=lambda cuts: max(tall(nodes[a:b]) for a, b in itertools.pairwise(cuts)))


def tall(nodes: Sequence[Node]) -> float:
    """How high a column of these nodes is."""
    return sum(node.grown + GAP for node in nodes) - GAP


def block(group: int, nodes: Sequence[Node], cuts: Sequence[int], title: float) -> Block:
    """The nodes in columns, each as wide as its widest node; all wider alike where the title needs it."""
    widths = [max(node.width for node in nodes[a:b]) for a, b in itertools.pairwise(cuts)]
    more = max(0.0, title - sum(widths) - GAP * (len(widths) - 1) - 2 * SIDE) / len(widths)
    x, bottom, deepest, used, places = float(SIDE), 0.0, 0.0, 0.0, []
    for (a, b), needed in zip(itertools.pairwise(cuts), widths, strict=True):
        y, width = float(HEAD), needed + more
        for node in nodes[a:b]:
            places.append((node.id, x, y, width, node.height))
            bottom = max(bottom, y + node.height)
            deepest = max(deepest, y + node.grown)
            used += width * node.previewed
            y += node.grown + GAP
        x += width + GAP
    fullness = used / ((x - GAP - SIDE) * (deepest - HEAD))
    return Block(group, x - GAP + SIDE, deepest + SIDE, bottom, fullness, tuple(places))


def rating(part: Part, used: float, cost: float) -> Iterator[float]:
    """How large the window shows it, less for what stays empty and for what is out of the window once nodes have grown.

    Nothing if it is too long or too high.
    """
    width, height = part.width - 2 * SIDE, part.bottom - HEAD
    if not SQUAREST <= width / height <= WIDEST:
        return
    scale = FILL * min(WINDOW[0] / (width + MARGIN), WINDOW[1] / (height + MARGIN))
    empty = 1 - used / (part.width * part.height)
    unread = max(0.0, LEGIBLE - scale)
    grown = part.height - SIDE - HEAD - height / 2  # from the middle of the window down
    hidden = max(0.0, grown * min(scale, 1.0) / (WINDOW[1] / 2) - 1)
    yield min(scale, BEST_SCALE) - EMPTY_WEIGHT * empty - SMALL_WEIGHT * unread - HIDDEN_WEIGHT * hidden - cost


def placed(part: Part) -> list[Block]:
    """The blocks in order, their nodes' places in the graph's coordinates."""
    blocks, top = [], 0.0
    for stacks in part.rows:
        left, height = 0.0, 0.0
        for stack in stacks:
            y, width = top, max(block.width for block in stack)
            for each in stack:
                wide = stretched(each, width)
                moved = tuple((key, left + x, y + dy, w, h) for key, x, dy, w, h in wide.places)
                blocks.append(replace(wide, places=moved))
                y += each.height + GAP
            left += width + GAP
            height = max(height, y - top)
        top += height
    return sorted(blocks, key=lambda block: block.group)


def stretched(part: Block, width: float) -> Block:
    """The block as wide as its stack, if it is a single column that is not much narrower."""
    inner = width - 2 * SIDE
    if len({place[1] for place in part.places}) > 1 or width == part.width or inner > STRETCH * part.places[0][3]:
        return part
    return replace(part, width=width, places=tuple((key, x, y, inner, h) for key, x, y, _, h in part.places))


def frame(part: Block) -> list[float]:
    """A placed block's frame `[x, y, width, height]`."""
    left, top = min(place[1] for place in part.places), min(place[2] for place in part.places)
    return [left - SIDE, top - HEAD, part.width, part.height]


def wire_length(blocks: Sequence[Block], links: Sequence[tuple[int, int]]) -> float:
    """The sum of the wires' lengths, from right edge to left edge; those that run back count twice."""
    boxes = {place[0]: place[1:] for part in blocks for place in part.places}
    total = 0.0
    for source, target in links:
        (x, y, width, _), (to_x, to_y, _, _) = boxes[source], boxes[target]
        across = to_x - x - width
        total += abs(across) * (1 if across > 0 else 2) + abs(to_y - y)
    return total


def runs_forward(blocks: Sequence[Block], links: Sequence[tuple[int, int]]) -> bool:
    """Whether every wire ends to the right of its node, or below it."""
    boxes = {place[0]: place[1:] for part in blocks for place in part.places}
    for source, target in links:
        (x, y, width, height), (to_x, to_y, _, _) = boxes[source], boxes[target]
        if x + width >= to_x and y + height >= to_y:
            return False
    return True
