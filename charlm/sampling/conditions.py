"""Conditions on names, and sampling the names that meet them.

Sampling is exact: names are distributed as the model's names given that they meet the conditions.
A prefix is where sampling starts; what does not meet the other conditions is rejected.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from charlm.core.errors import InputError
from charlm.sampling.distances import unlike_all
from charlm.sampling.sampler import AT_ONCE

FIRST_ROUND = 1024
"""Names to sample in the first round; each further round doubles it."""
PATIENCE = 2_000_000
"""Samples after which to give up if none met the conditions."""
RARE = 1000
"""Additional samples allowed for each name found."""


@dataclass(frozen=True)
class Conditions:
    """What names have to be like, in the model's characters.

    Attributes:
        prefixes: each name begins with one of them.
        suffix: each name ends with it.
        length: fewest and most characters of a name.
        max_length: names are cut at this many characters. With a suffix or a length none is cut:
            a name that goes on after `max_length` characters does not meet the conditions.
        known: names to exclude; then the others are distinct, too. With None, names may repeat.
        unlike: smallest edit distance from each name of `known`.

    Raises InputError if no name can meet them, or if a prefix is too long.
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
                f"length {_range(*self.length)} is above max_length, {self.max_length}; "
                "raise max_length or shorten it"
            )
        too_long = [prefix for prefix in self.prefixes if len(prefix) > self.max_length]
        if self.cuts and too_long:
            raise InputError(
                f"{too_long[0]!r} is longer than max_length, {self.max_length}; "
                "raise max_length or shorten it"
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
        """Return whether names longer than `max_length` are cut, not rejected."""
        return not self.suffix and self.length is None

    @property
    def lengths(self) -> tuple[int, int]:
        """Return the fewest and the most characters of a name."""
        return self.length or (1, self.max_length)

    @property
    def drawn_length(self) -> int:
        """Return where to cut samples: where none is to be, one character tells that it goes on."""
        _, longest = self.lengths
        return longest if self.cuts else longest + 1

    @property
    def rejects(self) -> bool:
        """Return whether some of the model's names with a prefix do not meet the conditions."""
        return not self.cuts or self.known is not None

    def starts(self) -> list[str]:
        """Return the prefixes with which a name can end in the suffix and have the length."""
        if self.cuts:
            return list(self.prefixes)
        shortest, longest = self.lengths
        lengths = range(longest, shortest - 1, -1)
        return [prefix for prefix in self.prefixes if any(self._suits(prefix, n) for n in lengths)]

    def fitting(self, names: Iterable[str]) -> list[str]:
        """Return those of `names` with the suffix and the length."""
        if self.cuts:
            return list(names)
        shortest, longest = self.lengths
        return [
            name
            for name in names
            if shortest <= len(name) <= longest and name.endswith(self.suffix)
        ]

    def novel(self, names: Iterable[str]) -> Iterator[str]:
        """Yield those of `names` that are far enough from the known ones, as they are needed."""
        if self.known is None:
            return iter(names)
        unknown = [name for name in names if name not in self.known]
        return unlike_all(unknown, self._listed, self.unlike) if self.unlike > 1 else iter(unknown)

    def meeting(self, names: Iterable[str]) -> Iterator[str]:
        """Yield those of `names` that meet all conditions but the prefix, as they are needed."""
        return self.novel(self.fitting(names))

    def too_few(
        self, tried: str, found: int, count: int, advice: Mapping[str, object]
    ) -> InputError:
        """Return the error that what was tried gave only `found` of `count` names.

        Args:
            tried: what was done.
            found: number of names.
            count: number of names asked for.
            advice: what else may help, and whether it applies.
        """
        kind = "names" if self.known is None else "distinct novel names"
        relaxed = {
            f"lower the count to {found:,}": found,
            **advice,
            "shorten the suffix": self.suffix,
            "allow more lengths": self.length,
            "lower unlike": self.unlike > 1,
        }
        *others, last = [text for text, helps in relaxed.items() if helps]
        return InputError(
            f"{tried} gave only {found:,} of {count:,} {kind}{'' if self.cuts else ' that fit'}; "
            f"{', '.join(others)}{' or ' * bool(others)}{last}"
        )

    def _suits(self, prefix: str, length: int) -> bool:
        """Return whether `length` characters can begin with `prefix` and end in the suffix."""
        overlap = len(prefix) + len(self.suffix) - length
        fits = max(len(prefix), len(self.suffix)) <= length
        return fits and (overlap <= 0 or prefix.endswith(self.suffix[:overlap]))

    @cached_property
    def _listed(self) -> list[str]:
        return list(self.known or ())


def sample_fitting(
    draw: Callable[[int], list[str]], conditions: Conditions, count: int
) -> list[str]:
    """Sample `count` names that meet the conditions, by rejection.

    Args:
        draw: samples as many names of the model as it is told, which begin with any of `starts`
            and are cut at `drawn_length`.
        conditions: what to keep.
        count: number of names.

    Raises InputError after `PATIENCE` samples, and `RARE` for each name found, without `count`.
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
