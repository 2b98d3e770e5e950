"""Paths for workers, which have another current folder than who typed them."""

import os
from typing import TypeVar

Name = TypeVar("Name", str, str | None)


def absolute(place: str) -> str:
    """Return a path's absolute form; an address such as s3://bucket/folder as it is."""
    return place if "://" in place else os.path.abspath(place)


def absolute_model(model: Name) -> Name:
    """Return a folder's absolute path; a name, such as that of a bundled model, and None as they are."""
    return os.path.abspath(model) if model is not None and os.path.isdir(model) else model
