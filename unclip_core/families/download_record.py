"""Which version of each file `unclip download` has put into a folder, so that none is taken for that of another."""

import json
from dataclasses import dataclass
from pathlib import Path

from ..parsing import MalformedInput, checked, read_json
from ..weights.files import CheckpointError, write_whole
from ..weights.replacing import put_in_place

NAME = ".unclip-download.json"
"""The record's file, in the model's folder: a JSON object of versions by file."""

UNKNOWN = ""
"""The version of a file that is being replaced: if that ends halfway, it may be the old one or the new one."""


@dataclass
class Record:
    """The hub's versions (ETags: hashes of the contents) of a folder's files, by their paths there.

    A file that was put there before there was a record is in none.
    """

    folder: Path
    versions: dict[str, str]

    @classmethod
    def read(cls, folder: Path) -> "Record":
        """Read the folder's record; an empty one where there is none.

        Raises:
            CheckpointError: it is damaged.
            OSError: it cannot be read.
        """
        path = folder / NAME
        if not path.is_file():
            return cls(folder, {})
        try:
            return cls(folder, checked(dict[str, str], read_json(path), f"'{path}'"))
        except MalformedInput as error:
            raise CheckpointError(
                f"{error} Without it nobody knows of which revision the files beside it are: delete them with it, and "
                "run the command again."
            ) from error

    def replace(self, file: str, part: Path, version: str) -> None:
        """Put what was fetched, `part`, in the place of `file`, and note its version.

        Raises:
            OSError: one of them cannot be written; the version is then unknown, or as it was.
        """
        self._note(file, UNKNOWN)
        put_in_place(part, self.folder / file)
        self._note(file, version)

    def _note(self, file: str, version: str) -> None:
        self.versions[file] = version
        write_whole(self.folder / NAME, json.dumps(self.versions, indent=1, sort_keys=True).encode())
