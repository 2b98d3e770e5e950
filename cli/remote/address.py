"""Where a server is, and what it wants to see before it answers: credentials are sent there and printed nowhere."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit, urlunsplit

HEADER_VARIABLE = "UNCLIP_SERVER_HEADER"
"""Environment variable with headers for every server, one a line: "Authorization: Bearer …"."""

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Address:
    """A server's address.

    Attributes:
        url: scheme, host, port and path, without credentials and without a slash at the end.
        local: whether it is this machine, so that no proxy is asked.
        headers: to send with every request; credentials are among them.
    """

    url: str
    local: bool
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


def read_address(text: str, headers: Mapping[str, str] | None = None) -> Address:
    """Read `--server`: "http://host:8188", "host:8188" or "https://user:password@host/path".

    Args:
        text: what was typed.
        headers: for the server; user and password of the address stand above an Authorization among them.

    Raises:
        ValueError: it is no HTTP address; the message repeats it without user and password.
    """
    full = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(full)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and _has_host(full)
    except ValueError:
        valid = False
    if not valid or "@" in parts.path + parts.query + parts.fragment:
        raise ValueError(
            f"--server {without_credentials(text)!r} is no address of a server, such as http://127.0.0.1:8188 or "
            "https://user:password@host (in user and password, write / as %2F, @ as %40 and : as %3A)."
        )
    if parts.query:
        raise ValueError(
            f"--server {parts.hostname!r} is given with a query (?…), which ComfyUI's API has no place for. "
            f"Put a token into the environment variable {HEADER_VARIABLE}."
        )
    url = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))
    return Address(url, parts.hostname in _LOCAL, {**(headers or {}), **_basic(parts.username, parts.password)})


def _has_host(url: str) -> bool:
    """Whether the HTTP library finds a host in it, and one that can be looked up. ValueError where it cannot."""
    from yarl import URL

    host = URL(url).host or ""
    return bool(host.encode("idna")) and not any(letter.isspace() for letter in host)


def _basic(user: str | None, password: str | None) -> dict[str, str]:
    if user is None and password is None:
        return {}
    said = f"{unquote(user or '')}:{unquote(password or '')}"
    return {"Authorization": f"Basic {base64.b64encode(said.encode()).decode()}"}


def read_headers(text: str) -> dict[str, str]:
    """Read headers, "Name: value" a line; empty lines do not count.

    Raises:
        ValueError: a line is of another form; the message does not repeat it, as it may hold a password.
    """
    headers = {}
    for number, line in enumerate(text.splitlines(), start=1):
        name, separator, value = (part.strip() for part in line.partition(":"))
        if not line.strip():
            continue
        if not separator or not value or not _HEADER_NAME.fullmatch(name) or not value.isprintable():
            raise ValueError(
                f"{HEADER_VARIABLE}, line {number}, is no header. Write a name, a colon and a value, such as "
                "'Authorization: Bearer TOKEN'."
            )
        headers["Authorization" if name.lower() == "authorization" else name] = value
    return headers


def without_credentials(url: str) -> str:
    """The address, typed rightly or not, with user and password left out."""
    before, at, after = url.rpartition("@")
    return f"{before.partition('://')[0]}://{after}" if at and "://" in before else after
