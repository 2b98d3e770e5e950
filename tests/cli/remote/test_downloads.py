"""What counts as a whole file of a server."""

import io

import pytest
from PIL import Image

from unclip.cli.remote.downloads import suffix_of

SVG = '<?xml version="1.0"?>\n<!-- é --><svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0"/></svg>\n'


def suffix(tmp_path, name, data):
    path = tmp_path / "aside"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return suffix_of(path, name)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.SVG", SVG),
        ("a.txt", "a cat, \u201cred\u201d"),
        ("a.json", '{"a": [1]}'),
        ("a.csv", "a,b\n1,2\n"),
        ("a.md", "# a"),
    ],
)
def test_a_text_counts_as_what_it_is_called(tmp_path, name, data):
    assert suffix(tmp_path, name, data) == name[1:].lower()


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.svg", SVG[:-9], "no <svg> with its end"),
        ("a.svg", "<html>not found</html>", "no <svg> with its end"),
        ("a.json", '{"a": [1', "it is no whole .json"),
        ("a.txt", b"caf\xe9", "it is no whole .txt"),
        ("a.txt", b"a\0b", "no zero bytes"),
        ("a.txt", "", "it is empty"),
        ("a.html", "<html></html>", "it is no whole image"),
        ("a", "some text", "it is no whole image"),
    ],
)
def test_what_is_cut_off_or_something_else_does_not(tmp_path, name, data, said):
    with pytest.raises(ValueError, match=said):
        suffix(tmp_path, name, data)


def test_an_image_is_one_whatever_it_is_called(tmp_path):
    sink = io.BytesIO()
    Image.new("RGB", (4, 4)).save(sink, "PNG")
    assert suffix(tmp_path, "a.txt", sink.getvalue()) == ".png"
