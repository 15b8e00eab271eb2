"""Conditions on names, and sampling of names that meet them.

Sampling is exact: names follow the model's distribution, restricted to those that meet the
conditions. Sampling starts from a prefix, and names that violate other conditions are rejected.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from charlm.core.errors import InputError
from charlm.sampling.distances import unlike_all
from charlm.sampling.sampler import AT_ONCE

FIRST_ROUND = 1024
"""Number of names sampled in the first round; it doubles in each further round."""
PATIENCE = 2_000_000
"""Number of samples after which to give up if none meets the conditions."""
RARE = 1000
"""Additional samples allowed for each name found."""


@dataclass(frozen=True)
class Conditions:
    """Conditions that names must meet, in the model's characters.

    Attributes:
        prefixes: each name begins with one of them.
        suffix: each name ends with it.
        length: minimum and maximum number of characters of a name.
        max_length: names are cut at this many characters. With a suffix or a length, longer names
            are rejected instead.
        known: names to exclude. The sampled names are then distinct; if None, they can repeat.
        unlike: minimum edit distance from each name in `known`.

    Raises InputError if no name can meet the conditions, or if a prefix is too long.
    """

    prefixes: Sequence[str] = ("",)
    suffix: str = ""
    length: tuple[int, int] | None = None
    max_length: int = 30
    known: Set[str] | None = None
    unlike: int = 1

    def __post_init__(self) -> None:
        if self.length and self.length[1] > self.max_length:
            raise InputError(
                f"length {_range(*self.length)} exceeds max_length ({self.max_length}); "
                "raise max_length or lower length"
            )
        too_long = [prefix for prefix in self.prefixes if len(prefix) > self.max_length]
        if self.cuts and too_long:
            raise InputError(
                f"{too_long[0]!r} is longer than max_length ({self.max_length}); "
                "raise max_length or shorten the prefix"
            )
        if not self.starts():
            some = " or ".join(map(repr, self.prefixes[:3])) + " ..." * (len(self.prefixes) > 3)
            begins = f" begins with {some}" if all(self.prefixes) else ""
            ends = f" ends with {self.suffix!r}" if self.suffix else ""
            raise InputError(
                f"no name of {_range(*self.lengths)} characters{begins}"
                f"{' and' if begins and ends else ''}{ends}; "
                f"allow more characters, or shorten the {'prefix' if begins else 'suffix'}"
            )

    @property
    def cuts(self) -> bool:
        """Whether names longer than `max_length` are cut rather than rejected."""
        return not self.suffix and self.length is None

    @property
    def lengths(self) -> tuple[int, int]:
        """The minimum and maximum number of characters of a name."""
        return self.length or (1, self.max_length)

    @property
    def drawn_length(self) -> int:
        """Where to cut samples: one character more than allowed if longer names are rejected."""
        _, longest = self.lengths
        return longest if self.cuts else longest + 1

    @property
    def rejects(self) -> bool:
        """Whether names that begin with a prefix can violate the other conditions."""
        return not self.cuts or self.known is not None

    def starts(self) -> list[str]:
        """Return the prefixes that are compatible with the suffix and the length."""
        if self.cuts:
            return list(self.prefixes)
        shortest, longest = self.lengths
        lengths = range(longest, shortest - 1, -1)
        return [prefix for prefix in self.prefixes if any(self._allows(prefix, n) for n in lengths)]

    def fitting(self, names: Iterable[str]) -> list[str]:
        """Return the names that have the suffix and the length."""
        if self.cuts:
            return list(names)
        shortest, longest = self.lengths
        return [
            name
            for name in names
            if shortest <= len(name) <= longest and name.endswith(self.suffix)
        ]

    def novel(self, names: Iterable[str]) -> Iterator[str]:
        """Yield, lazily, the names that are far enough from the known ones."""
        if self.known is None:
            return iter(names)
        unknown = [name for name in names if name not in self.known]
        return unlike_all(unknown, self._listed, self.unlike) if self.unlike > 1 else iter(unknown)

    def meeting(self, names: Iterable[str]) -> Iterator[str]:
        """Yield, lazily, the names that meet all conditions except the prefix."""
        return self.novel(self.fitting(names))

    def too_few(
        self, tried: str, found: int, count: int, advice: Mapping[str, object]
    ) -> InputError:
        """Return the error that only `found` of `count` names were found.

        Args:
            tried: what was tried.
            found: number of names found.
            count: number of names requested.
            advice: additional advice, each with whether it applies.
        """
        kind = "names" if self.known is None else "distinct novel names"
        relaxed = {
            f"lower the count to {found:,}": found,
            **advice,
            "shorten the suffix": self.suffix,
            "allow a wider range of lengths": self.length,
            "lower unlike": self.unlike > 1,
        }
        *others, last = [text for text, helps in relaxed.items() if helps]
        return InputError(
            f"{tried} gave only {found:,} of {count:,} {kind}{'' if self.cuts else ' that fit'}; "
            f"{', '.join(others)}{' or ' * bool(others)}{last}"
        )

    def _allows(self, prefix: str, length: int) -> bool:
        """Return whether a name of `length` characters can have both `prefix` and the suffix."""
        overlap = len(prefix) + len(self.suffix) - length
        fits = max(len(prefix), len(self.suffix)) <= length
        return fits and (overlap <= 0 or prefix.endswith(self.suffix[:overlap]))

    @cached_property
    def _listed(self) -> list[str]:
        return list(self.known or ())


def sample_fitting(
    draw: Callable[[int], list[str]], conditions: Conditions, count: int
) -> list[str]:
    """Sample `count` names that meet the conditions, by rejection sampling.

    Args:
        draw: samples the given number of names from the model, each beginning with one of
            `conditions.starts()` and cut at `conditions.drawn_length`.
        conditions: the conditions to meet.
        count: number of names.

    Raises InputError if `PATIENCE` samples, plus `RARE` for each name found, are not enough.
    """
    found: list[str] = []
    seen: set[str] = set()
    drawn, number = 0, FIRST_ROUND
    while len(found) < count:
        if drawn >= PATIENCE + RARE * len(found):
            advice = {
                "raise the temperature": True,
                "shorten the prefix": any(conditions.prefixes),
            }
            raise conditions.too_few(f"{drawn:,} samples", len(found), count, advice)
        names = conditions.fitting(draw(number))
        if conditions.known is not None:
            names = [name for name in dict.fromkeys(names) if name not in seen]
            seen.update(names)
        found += islice(conditions.novel(names), count - len(found))
        drawn, number = drawn + number, min(2 * number, AT_ONCE)
    return found


def _range(shortest: int, longest: int) -> str:
    return str(shortest) if shortest == longest else f"{shortest}-{longest}"
