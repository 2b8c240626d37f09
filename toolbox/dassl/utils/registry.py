"""Registries: how trainers, data sets and evaluators are found by the name in the config."""

from __future__ import annotations

from collections.abc import Callable

from .tools import check_availability

__all__ = ["Registry"]


class Registry:
    """A table of named classes or functions: `@REGISTRY.register()` above a class, then `REGISTRY.get("ItsName")`."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._obj_map: dict[str, object] = {}

    def register(self, name: str | None = None, obj: object = None, force: bool = False) -> Callable | None:
        """Decorator, or a plain call when `obj` is given. `force` replaces an earlier entry of that name.

        Raises:
            KeyError: the name is taken.
        """
        if obj is not None:
            self._add(name or obj.__name__, obj, force)
            return None

        def decorator(target):
            self._add(name or target.__name__, target, force)
            return target

        return decorator

    def _add(self, name: str, obj: object, force: bool) -> None:
        if name in self._obj_map and not force:
            raise KeyError(f'"{name}" is already registered in {self._name}, by {self._obj_map[name].__module__}')
        self._obj_map[name] = obj

    def get(self, name: str) -> object:
        """The object of that name.

        Raises:
            KeyError: unknown name.
        """
        try:
            check_availability(name, self.registered_names())
        except ValueError as error:
            raise KeyError(f"{self._name}: {error}") from None
        return self._obj_map[name]

    def registered_names(self) -> list[str]:
        return list(self._obj_map)

    def __contains__(self, name: str) -> bool:
        return name in self._obj_map
