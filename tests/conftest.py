"""What every test's report needs."""

import pytest


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """Escape what no stream can encode, such as half a character in a log: reports travel between processes."""
    report = (yield).get_result()
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
