"""The README in Turkish says what the English one does: the same headings, commands, tables and links.

After a change of README.md make the same one in README.tr.md; texts are free, these are compared.
"""

import itertools
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENGLISH, TURKISH = (ROOT.joinpath(name).read_text(encoding="utf-8") for name in ("README.md", "README.tr.md"))
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def headings(text):
    """The level of each heading; an English one stays as it is where it is a name."""
    return [len(marks) for marks in re.findall(r"^(#+) ", FENCE.sub("", text), re.MULTILINE)]


def blocks(text):
    """(language, lines without their comments) of each block of code."""
    return [(kind, [without_comment(line) for line in body.splitlines()]) for kind, body in FENCE.findall(text)]


def without_comment(line):
    code, mark, _ = line.partition("#")
    kept = re.match(r"# \S+ = \S+|# \[\w+\]", line)  # a setting that is commented out
    return kept.group() if kept else code.rstrip() + (" #" if mark else "")


def tables(text):
    """The number of rows, with its head, of each table."""
    kinds = itertools.groupby(FENCE.sub("", text).splitlines(), lambda line: line.startswith("|"))
    return [len(list(lines)) for is_table, lines in kinds if is_table]


def links(text):
    """Where links and images lead, but from one README to the other."""
    found = re.findall(r"\]\(([^)]+)\)|src=\"([^\"]+)\"", FENCE.sub("", text))
    return sorted(target for target in map("".join, found) if not target.startswith("README"))


def options(text):
    """Every option and command of `unclip` that is named."""
    said = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))
    return said | set(re.findall(r"unclip (?:run|map|queue|train|bench|evaluate|embed|convert|download)\b", text))


def test_the_turkish_readme_has_the_headings_commands_tables_and_links_of_the_english_one():
    assert headings(TURKISH) == headings(ENGLISH)
    assert blocks(TURKISH) == blocks(ENGLISH)
    assert tables(TURKISH) == tables(ENGLISH)
    assert links(TURKISH) == links(ENGLISH)
    assert options(TURKISH) == options(ENGLISH)


def test_what_the_readmes_vary_changes_the_drawing():
    """Of the workflow that they name: another seed of the upscaler enlarges the same drawing."""
    workflow = json.loads((ROOT / "workflows/api/text_to_image.json").read_text(encoding="utf-8"))
    for text in (ENGLISH, TURKISH):
        varied = [(workflow[node], name) for node, name in re.findall(r"--vary (\d+)\.(\w+)=", text)]
        assert len(varied) == 2
        for node, name in varied:
            assert node["class_type"] in ("UnclipPriorSample", "UnclipDecoderSample") and name in node["inputs"]


def test_each_readme_names_the_other():
    assert "](README.tr.md)" in ENGLISH and "](README.md)" in TURKISH
