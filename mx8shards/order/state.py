"""What must be known to deliver the very next step, on any number of ranks?

A state is equal on all ranks: where the order stands after the last completed global step, and which order of which
data that is. It is small JSON, loaded in constant time at any position.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from mx8shards.errors import FormatError, IntegrityError, LoaderError

DIALECT = "mx8shards"  # other ones, of other loaders, may be read beside it
VERSION = 1

_TYPES: dict[str, type] = {
    "snapshot": str,
    "view": str,
    "order": dict,
    "seed": int,
    "epoch": int,
    "position": int,
    "lost": dict,
    "pixels": dict,
}
_NAMES = {str: "str", dict: "object", int: "int"}


@dataclass(frozen=True, kw_only=True, slots=True)
class State:
    """Epoch and position, and the data, view, order and seed for which they hold.

    `snapshot` is a snapshot's id, or several of joined datasets; `view` is a hash of the view; `order` is the order's
    description; `position` counts what completed global steps have consumed of the epoch's order. At an epoch's end it
    is 0 and the epoch is the next one. `lost` has the count and the digest of the samples that this rank could not
    deliver: it is what was, and decides nothing. `pixels` says in which of several ways the pixels of each column were
    made: another one gives slightly other values.
    """

    snapshot: str
    view: str
    order: Mapping[str, Any]
    seed: int
    epoch: int
    position: int
    lost: Mapping[str, Any] = field(default_factory=lambda: {"count": 0, "digest": ""})
    pixels: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The state as JSON-able values."""
        return {"state": DIALECT, "version": VERSION, **asdict(self)}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """The state that `to_json` gave; FormatError, with the place in it, for anything else."""
        try:
            return cls(**_checked(value))
        except FormatError as error:
            raise error.at(subject="state") from None

    def check(self, now: State, length: int) -> None:
        """Refuse to go on from this state with a loader whose own state is `now` and whose order is `length` long.

        IntegrityError if the data or the view of them are other ones, LoaderError if order, seed or length are.
        """
        for name in ("snapshot", "view"):
            if getattr(self, name) != getattr(now, name):
                raise IntegrityError(
                    subject="state",
                    place=f"$.{name}",
                    expected=f"{getattr(now, name)} (this loader's)",
                    found=getattr(self, name),
                    hint="a state goes on with the data it was taken from",
                )
        for name in ("order", "seed"):
            if getattr(self, name) != getattr(now, name):
                raise LoaderError(
                    subject="state",
                    place=f"$.{name}",
                    expected=f"{getattr(now, name)!r} (this loader's)",
                    found=f"{getattr(self, name)!r}",
                    hint="make the loader with the settings of the state",
                )
        if self.position > length:
            raise LoaderError(
                subject="state", place="$.position", expected=f"at most {length} (an epoch)", found=str(self.position)
            )


def _checked(value: Any) -> dict[str, Any]:
    """The fields of a state, each of its type."""
    if not isinstance(value, Mapping):
        raise FormatError(place="$", expected="object", found=type(value).__name__)
    for name, wanted in (("state", DIALECT), ("version", VERSION)):
        found = value.get(name)
        if type(found) is not type(wanted) or found != wanted:
            raise FormatError(place=f"$.{name}", expected=repr(wanted), found=repr(found))
    for name, kind in _TYPES.items():
        if name not in value:
            raise FormatError(place="$", expected=f"a key {name!r}", found="none")
        if type(value[name]) is not kind:
            raise FormatError(place=f"$.{name}", expected=_NAMES[kind], found=type(value[name]).__name__)
    for name in ("epoch", "position"):
        if value[name] < 0:
            raise FormatError(place=f"$.{name}", expected="an int of at least 0", found=str(value[name]))
    lost = value["lost"]
    if lost.keys() != {"count", "digest"} or type(lost["count"]) is not int or type(lost["digest"]) is not str:
        raise FormatError(place="$.lost", expected="a count and a digest", found=f"{lost!r:.60}")
    if not all(type(name) is type(path) is str for name, path in value["pixels"].items()):
        raise FormatError(place="$.pixels", expected="a name for each column", found=f"{value['pixels']!r:.60}")
    unknown = sorted(str(name) for name in set(value) - {"state", "version", *_TYPES})
    if unknown:
        raise FormatError(place="$", expected="no other keys", found=", ".join(map(repr, unknown)))
    return {name: value[name] for name in _TYPES}
