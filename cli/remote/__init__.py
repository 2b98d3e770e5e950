"""Queue a workflow many times over ComfyUI's HTTP API, on one server or several; the command is `cli/queue.py`.

One subject a file: `rows` (the table, the varied inputs, the count), `journal` (progress on disk), `address` (where a
server is, with credentials), `server` (one ComfyUI over HTTP) and `answers` (what it says, in checked types),
`downloads` (files, checked and named), `scheduler` (which row goes to which server), `worker` (one server's work),
`batch` (a whole run and its report), `threads` (blocking calls that an interrupt need not wait for).
"""

from .batch import BatchReport, run_batch
from .rows import Batch, Row, read_varied
from .tables import read_table

__all__ = ["Batch", "BatchReport", "Row", "read_table", "read_varied", "run_batch"]
