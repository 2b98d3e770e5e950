"""What the tests of this folder need of the thread that they run in."""

import asyncio
import signal

import pytest


@pytest.fixture(autouse=True)
def interrupts():
    """Ctrl-C is obeyed, also where the tests were started in the background, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def no_loop_of_others():
    """An event loop that an earlier test's browser leaves running in this thread is out of sight."""
    loop = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    yield
    asyncio._set_running_loop(loop)
