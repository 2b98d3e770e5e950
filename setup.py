"""Names the packages: those found below the repository's root, as parts of `unclip` (all else is in pyproject.toml)."""

from setuptools import find_packages, setup

setup(packages=["unclip", *(f"unclip.{name}" for name in find_packages(include=["cli*", "nodes*", "unclip_core*"]))])
