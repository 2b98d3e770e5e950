"""What is said when Ray gives up."""

import pytest

pytest.importorskip("numpy")

from unclip.cli.mapping.engine import batches


class TaskError(Exception):
    """As Ray's: where it ran, with a trace; what was raised there is its cause."""

    cause = ValueError("'t.parquet' is damaged.\nFailed to read after 1/10 attempts")


class Dataset:
    def iter_batches(self, **how):
        self.how = how
        yield "a batch"
        raise TaskError("\x1b[36mray::ReadParquet()\x1b[39m (pid=7)\n  File ...")


def test_an_error_in_a_task_is_its_own_sentence_without_rays_trace():
    found = batches(dataset := Dataset(), "pyarrow")
    assert next(found) == "a batch" and dataset.how["batch_format"] == "pyarrow"
    with pytest.raises(OSError) as error:
        next(found)
    assert str(error.value) == "Ray gave up: 't.parquet' is damaged."
