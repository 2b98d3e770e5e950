"""A cached property that keeps only a weak reference to its value."""

import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")


class weak_cached_property(Generic[_T]):  # noqa: N801 - a decorator, like cached_property
    """Like `cached_property`, but computed anew once its value was freed: large values do not stay in memory."""

    def __init__(self, compute: Callable[[Any], _T]) -> None:
        """`compute`: (the owner) -> the value, of a class that allows weak references."""
        self._compute, self.__doc__ = compute, compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        """Remember the name that the reference is kept under."""
        self._name = f"weakly cached {name}"

    def __get__(self, owner: Any, kind: type) -> _T:
        """Return the value that is still alive, else a new one."""
        reference = owner.__dict__.get(self._name)
        value = None if reference is None else reference()
        if value is None:
            value = self._compute(owner)
            owner.__dict__[self._name] = weakref.ref(value)
        return value
