"""Processes that measure: what they say, and what is said where they fail."""

import pytest

from unclip.unclip_core.fresh_process import FailedProcess, ask


def test_the_last_line_is_the_answer():
    program = "import os, json; print('by the way'); print(json.dumps({'found': os.environ['ASKED']}))"
    assert ask("it", ["-c", program], {"ASKED": "7"}) == {"found": "7"}


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("raise MemoryError('too large')", "ours failed with exit code 1: .*MemoryError: too large"),
        ("print('no figures')", "ours said nothing that can be read, but 'no figures'"),
        ("", "ours said nothing that can be read, but ''"),
    ],
)
def test_a_failed_process_is_a_sentence_that_the_command_prints(program, said):
    with pytest.raises(ValueError, match=f"(?s)^{said}$") as error:
        ask("ours", ["-c", program])
    assert type(error.value) is FailedProcess
