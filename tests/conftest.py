"""What every test's report needs, and what makes tests come out alike on all machines."""

import os

import pytest

os.environ["UNCLIP_MEASURE_CPU"] = "0"  # for the programs that tests start, too: the constants decide


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Escape what no stream can encode, such as half a character in a log: reports travel between processes."""
    report = (yield).get_result()
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
