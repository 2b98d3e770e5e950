"""Where the drawings and their names come from: packages of the npm registry, by name, version and hash."""

import base64
import hashlib
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...weights.files import write_whole

MOST_BYTES = 64 * 2**20  # the largest package has 16 MiB
TIMEOUT = 120.0  # seconds without an answer


@dataclass(frozen=True)
class Package:
    """A package: its name, version, sha512 as npm writes it (`integrity`), licence, and whose work it is."""

    name: str
    version: str
    integrity: str
    licence: str
    credit: str

    @property
    def file(self) -> str:
        """Its file's name, as `npm pack` names it."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"

    @property
    def path(self) -> str:
        """Its place in a registry."""
        return f"{self.name}/-/{self.name.rpartition('/')[2]}-{self.version}.tgz"


PACKAGES = {
    "shaded": Package(
        "@iconify-json/noto",
        "1.2.9",
        "sha512-DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
        "Apache-2.0",
        "Noto Emoji, Google Inc",
    ),
    "cartoon": Package(
        "@iconify-json/twemoji",
        "1.2.5",
        "sha512-uKpuIEV0v6K5BW3Mjdyl+XKFVAbbcPxAgifKvEMtZoUZB5+YiY5zaMm2uNNCxyXzAWU9yNLlj41WU6/mvgALsw==",
        "CC-BY-4.0",
        "Twemoji, Twitter, Inc and other contributors",
    ),
    "flat": Package(
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "sha512-RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
        "MIT",
        "Fluent Emoji Flat, Microsoft Corporation",
    ),
    "3d": Package(
        "@lobehub/fluent-emoji-3d",
        "1.1.0",
        "sha512-Wlq2lVStTnr8BDpIJ0pEnTKO4LuDxxqTEhTvRtD1DLRF0me7ogeRQjKoehDHXuVJ2Qaecgl5wRBv60lUAG3h7g==",
        "MIT",
        "Fluent Emoji 3D, Microsoft Corporation, packed by LobeHub",
    ),
    "3d gaps": Package(
        "@iconify-json/fluent-emoji",
        "1.2.7",
        "sha512-D8G6bKAyIsyxP1rzZtIWr/gg/fO4Rg1+DyCWlfqKK4h8W+4Em/Y0P6QYgJUQTlUcagzJvSyg+9OBv4hz4Hc/QA==",
        "MIT",
        "Fluent Emoji, Microsoft Corporation",
    ),
    "retro": Package(
        "@iconify-json/noto-v1",
        "1.2.5",
        "sha512-/DsVMius69Q0fRS53z7QK1TROSuar606jiIx+laXtdsYGMXpf6LtHBx6CGfoo3UHHb/XpBsw+1L1x3eyPqMuVA==",
        "Apache-2.0",
        "Noto Emoji (v1), Google Inc",
    ),
    "names": Package(
        "cldr-annotations-full",
        "48.2.0",
        "sha512-DV7A+rEcgUSNTRsVGNGqBZRmAkGfwhGHO5Q1dRwzBoBnVrHWp804JP7/QJdEc66iHmx3+zLWVIMCFLm0lW7PUQ==",
        "Unicode-3.0",
        "CLDR annotations, Unicode, Inc",
    ),
    "derived names": Package(
        "cldr-annotations-derived-full",
        "48.2.0",
        "sha512-log62km+AOzI7n/NEuNNFV0mg9DWnt67EYCh1RwxZq9dyRuyteB586LT83Ke8TchEfnwI9cIk2P31zO4nTvZmw==",
        "Unicode-3.0",
        "CLDR derived annotations, Unicode, Inc",
    ),
}
"""What for → package: a style's drawings, the 3D drawings that the first package lacks, and names."""


class WrongPackage(ValueError):
    """A package that is not the one whose hash stands here."""


def fetch(folder: Path, packages: Mapping[str, Package] = PACKAGES, registry: str | None = None) -> None:
    """Bring the packages' files into `folder`; those that lie there already (by `npm pack`, say) are only checked.

    Args:
        folder: where they go; made if it is not there.
        packages: which.
        registry: its address; None for the one that npm is set up for, which is looked up where a file is missing.

    Raises:
        WrongPackage: a file's hash is another.
        ValueError: a file is missing, and no registry is set up.
        OSError: the registry does not answer, or a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for package in packages.values():
        path = folder / package.file
        if path.is_file():
            check(path.read_bytes(), package, str(path))
        else:
            address = registry or configured_registry(os.environ, _npmrc_files(), npm_registry)
            url = address.rstrip("/") + "/" + package.path
            data = _download(url)
            check(data, package, url)
            write_whole(path, data)


def check(data: bytes, package: Package, where: str) -> None:
    """Compare with the package's hash. Raises WrongPackage, which names `where` the bytes are from."""
    algorithm, _, expected = package.integrity.partition("-")
    found = base64.b64encode(hashlib.new(algorithm, data).digest()).decode()
    if found != expected:
        raise WrongPackage(
            f"'{where}' is not {package.name} {package.version}: its {algorithm} is {found}, not {expected}. Delete "
            "it, and it is fetched anew."
        )


def configured_registry(
    environment: Mapping[str, str], files: Sequence[Path], ask: Callable[[], str | None] = lambda: None
) -> str:
    """The registry as npm finds it: the environment's, else that of the first file that names one, else `ask`'s.

    Raises:
        ValueError: none of them names one.
    """
    for name, value in environment.items():
        if name.lower() == "npm_config_registry" and value:
            return value
    for path in files:
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            key, equals, value = line.partition("=")
            if equals and key.strip() == "registry":
                return value.strip().strip("\"'")
    if asked := ask():
        return asked
    raise ValueError(
        "No npm registry is set up here to fetch the drawings from, nor is npm installed, which knows one. Name one by "
        "npm_config_registry=ADDRESS in the environment or `registry=ADDRESS` in .npmrc; or put the packages into "
        "--packages."
    )


def npm_registry() -> str | None:
    """The registry that npm itself would take; None where it is not installed or does not answer."""
    npm = shutil.which("npm")
    if npm is None:
        return None
    try:
        command = [npm, "config", "get", "registry"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return said if said.startswith(("https://", "http://")) else None


def _npmrc_files() -> list[Path]:
    return [Path(".npmrc"), Path.home() / ".npmrc", Path("/usr/etc/npmrc"), Path("/etc/npmrc")]


def _download(url: str) -> bytes:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            data = answer.read(MOST_BYTES + 1)
    except OSError as error:
        raise OSError(
            f"'{url}' cannot be fetched ({error}). Lay the file into the folder by hand, or try again."
        ) from error
    if len(data) > MOST_BYTES:
        raise WrongPackage(f"'{url}' has more than {MOST_BYTES:,} bytes; no package here is that large.")
    return data
