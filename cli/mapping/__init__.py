"""`unclip map`: a table of prompts or a collection of images in, a table of images and embeddings out, on Ray Data.

One subject a file: `rows` (ids and seeds), `tasks` (what is made of a batch; knows no Ray), `results` (the output
folder: what is done, and how a part of it is written), `sources` (tables and collections as Ray datasets),
`text_tables` and `text_source` (CSV and JSONL, no cell's type guessed), `engine` (Ray itself), `job` (the actors and
the run), `progress` (how far it is), `shares` (`unclip embed` and `unclip evaluate` on the same engine).
"""
