"""A store in this process, for tests."""

import json
from collections.abc import Callable


class Here:
    """A store in this process, as far as the watch needs one; what it is told of others is given."""

    def __init__(self, others: dict[int, Callable[[], dict[str, object]]], count: int) -> None:
        self.values: dict[str, bytes] = {}
        self.others = others
        self.count = count

    def check(self, keys: list[str]) -> bool:
        return all(key in self.values or self._of_other(key) is not None for key in keys)

    def get(self, key: str) -> bytes:
        told = self._of_other(key)
        return self.values[key] if told is None else told

    def multi_get(self, keys: list[str]) -> list[bytes]:
        return [self.get(key) for key in keys]

    def set(self, key: str, value: str) -> None:
        self.values[key] = value.encode()

    def compare_set(self, key: str, _before: str, value: str) -> None:
        self.values.setdefault(key, value.encode())

    def add(self, key: str, number: int) -> int:
        self.set(key, str(int(self.values.get(key, b"0")) + number))
        return int(self.values[key])

    def _of_other(self, key: str) -> bytes | None:
        kind, _, rank = key.partition("/")
        if kind == "doing" and rank.isdigit() and int(rank) in self.others:
            return json.dumps(self.others[int(rank)]()).encode()
        return None
