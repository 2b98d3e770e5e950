"""The sub-commands of `unclip`: each file reads the arguments of some, and each calls one function."""
