"""Queue a workflow many times over ComfyUI's HTTP API, on one server or several; the command is `cli/queue.py`.

One subject a file: `rows` (what is queued: the table, what is varied, how often), `journal` (what has been done, on
disk), `server` (one ComfyUI over HTTP), `scheduler` (which row goes to which server, shared by the workers), `worker`
(one server's work), `batch` (a whole run and its report).
"""

from .batch import BatchReport, run_batch
from .rows import Batch, Row, read_table, read_varied

__all__ = ["Batch", "BatchReport", "Row", "read_table", "read_varied", "run_batch"]
