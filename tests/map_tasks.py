"""Tasks for `unclip map` that draw nothing, in a module of their own: Ray's workers import it by its name."""

import time
from pathlib import Path

from unclip.cli.mapping.results import Result
from unclip.cli.mapping.rows import row_seed

DRAWN = b"an image of row "


class Draws:
    """Says of each row which it was; "fail" as a prompt fails, and each row takes `seconds`."""

    seconds = 0.0

    def __init__(self, setup):
        self.setup = setup

    def __call__(self, rows):
        time.sleep(self.seconds * len(rows))
        if bad := [row.id for row in rows if row.values.get("prompt") == "fail"]:
            raise ValueError(f"cannot draw {bad}")
        return [Result(r.id, r.seed, r.values, image=DRAWN + f"{r.id} {r.seed}".encode()) for r in rows]


class DrawsSlowly(Draws):
    """As `Draws`, slow enough to be killed on the way."""

    seconds = 0.05


class FindsTheDiskFull(Draws):
    """Ends as a batch does that cannot be written."""

    def __call__(self, rows):
        raise OSError(28, "No space left on device")


def write_table(path, count):
    path.write_text("id,prompt\n" + "".join(f"row{i},a cat {i}\n" for i in range(count)) + ",\n")
    return str(path)


def rows_of(folder):
    from pyarrow import parquet

    found = [row for path in Path(folder).glob("part-*.parquet") for row in parquet.read_table(path).to_pylist()]
    return sorted(found, key=lambda row: row["id"])


def expected(count):
    names = sorted(f"row{i}" for i in range(count))
    return [(name, DRAWN + f"{name} {row_seed(name)}".encode()) for name in names]


def made(folder):
    return [(row["id"], row["image"]) for row in rows_of(folder)]
