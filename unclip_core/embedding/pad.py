"""The weights of a point among two, three or four corners."""

__all__ = ["CORNERS", "pad_weights"]

CORNERS = {
    2: ((0.0, 0.5), (1.0, 0.5)),
    3: ((0.0, 0.0), (1.0, 0.0), (0.5, 1.0)),
    4: ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)),
}
"""Where the corners lie, (x, y) in 0..1 with y downwards: a line, a triangle, a square."""


def pad_weights(count: int, x: float, y: float) -> tuple[float, ...]:
    """Return a weight for each of `count` corners at the point (x, y); they are 0..1 and sum to 1.

    On the line they are linear in x, and y has no effect. In the triangle they are barycentric; outside of it the
    corners that the point lies beyond count nothing. In the square they are bilinear. Each is 1 at its own corner.

    Args:
        count: 2, 3 or 4.
        x: 0 (left) to 1 (right).
        y: 0 (top) to 1 (bottom).

    Raises:
        ValueError: another count, or a point outside 0..1.
    """
    if count not in CORNERS:
        raise ValueError(f"a pad has 2, 3 or 4 corners, not {count}")
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise ValueError(f"a point on the pad lies in 0..1 both ways, not at ({x:g}, {y:g})")
    if count == 2:
        return 1 - x, x
    if count == 4:
        return (1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y
    shares = [max(share, 0.0) for share in (1 - x - y / 2, x - y / 2, y)]
    total = sum(shares)
    return tuple(share / total for share in shares)
