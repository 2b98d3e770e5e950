"""A folder as diffusers saves a pipeline: an index, and a folder with configuration and weights for each component."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ..parsing import checked
from ..weights.components import open_component
from ..weights.config_checks import read_table, refused, usable
from ..weights.files import CheckpointError
from ..weights.tensors import Tensors
from .registry import INDEX

T = TypeVar("T")


class DiffusersFolder:
    """The components of a folder; each file is read when it is asked for.

    Attributes:
        folder: the folder.
        components: names of those that the index says are there.
    """

    def __init__(self, folder: Path, index: Mapping[str, Any], needed: tuple[str, ...] = ()) -> None:
        """Read the index.

        Raises:
            CheckpointError: it does not name all that is `needed`.
        """
        self.folder = folder
        self.components = frozenset(
            name for name, entry in index.items() if isinstance(entry, list) and len(entry) == 2 and None not in entry
        )
        if missing := [name for name in needed if name not in self.components]:
            raise CheckpointError(
                f"'{folder / INDEX}' names no '{missing[0]}', without which it is no {index.get('_class_name')}. "
                f"It names {sorted(self.components) or 'no components at all'}."
            )

    def path(self, name: str) -> Path:
        """The folder of a component.

        Raises:
            CheckpointError: it is not there.
        """
        folder = self.folder / name
        if name not in self.components or not folder.is_dir():
            raise CheckpointError(
                f"The model '{self.folder.name}' has no '{name}': there is no folder '{folder}' that its {INDEX} "
                "names. Take a model that has one."
            )
        return folder

    def config(self, name: str, as_type: type[T], file: str = "config.json") -> T:
        """Read a component's configuration as that type, see `parsing.checked`.

        Raises:
            CheckpointError: it is missing, no JSON, or does not fit the type.
        """
        path = self.path(name) / file
        with refused():
            return checked(as_type, read_table(path), f"'{path}'")

    def configured(self, name: str, as_type: type[T], build: Callable[[T], Any], file: str = "config.json") -> Any:
        """What `build` makes of a component's configuration.

        Raises:
            CheckpointError: as of `config`, or the configuration is one that `build` refuses with a ValueError.
        """
        return usable(f"'{self.path(name) / file}'", build, self.config(name, as_type, file))

    def tensors(self, name: str) -> Tensors:
        """The weights of a component.

        Raises:
            CheckpointError: there are none.
        """
        return open_component(self.path(name))
