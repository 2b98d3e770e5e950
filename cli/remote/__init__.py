"""Queue a workflow many times over ComfyUI's HTTP API, on one server or several: `unclip queue`.

One subject a file: `rows` (what is queued: the table, what is varied, how often), `journal` (what has been done, on
disk), `server` (one ComfyUI over HTTP), `board` (which row is where, shared by the workers), `worker` (one server's
work), `batch` (a whole run and its report), `command` (the command line).
"""

from .batch import BatchReport, run_batch
from .command import queue_file
from .rows import Batch, Row, read_table, read_varied

__all__ = ["Batch", "BatchReport", "Row", "queue_file", "read_table", "read_varied", "run_batch"]
