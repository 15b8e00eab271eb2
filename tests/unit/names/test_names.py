"""Reading lists of names."""

import bz2
import gzip
import io
import lzma
import shlex
import subprocess
import sys
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from charlm.core.errors import InputError
from charlm.names import reading as names_module
from charlm.names.invisible import SUSPECT
from tests.helpers import POSIX, NameList, few, read_names, refused, taken_or_refused

THREE = ["ANNA", "BERTA", "CLARA"]
TEXT = "ANNA\nBERTA\nCLARA\n"
CSV = "count,name,sex\n7,ANNA,f\n8,BERTA,f\n9,CLARA,f\n"


def put(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def zipped(*members: tuple[str, str], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, text in members:
            archive.writestr(name, text)
    return buffer.getvalue()


def read_text(folder: Path, text: str | bytes) -> NameList:
    return read_names(put(folder, "names.txt", text))


def test_text_has_one_name_per_line_in_the_order_of_the_file(tmp_path: Path) -> None:
    assert read_text(tmp_path, "CLARA\nANNA\nBERTA\n") == NameList(["CLARA", "ANNA", "BERTA"], 0)


@pytest.mark.parametrize(
    "content",
    [
        TEXT.removesuffix("\n"),
        TEXT.replace("\n", "\r\n"),
        b"\xef\xbb\xbf" + TEXT.encode(),
        "\n\nANNA\n\n \t\nBERTA\nCLARA\n\n\n",
        "  ANNA\nBERTA \t\n\u00a0CLARA\u3000\n",
    ],
    ids=["no last line end", "CRLF", "byte order mark", "blank lines", "outer blanks"],
)
def test_line_endings_and_byte_order_marks_do_not_matter(
    tmp_path: Path, content: str | bytes
) -> None:
    assert read_text(tmp_path, content) == NameList(THREE, 0)


def test_spaces_inside_a_name_stay(tmp_path: Path) -> None:
    assert read_text(tmp_path, "ANNA  MARIA\nB\nC\n").names[0] == "ANNA  MARIA"


def test_text_is_not_a_table(tmp_path: Path) -> None:
    assert read_text(tmp_path, 'A,B\n"C"\nD\tE\n').names == ["A,B", '"C"', "D\tE"]


def test_accents_are_normalized_so_both_encodings_are_one_name(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "ZOÉ")
    assert len(decomposed) == 4
    assert read_text(tmp_path, f"{decomposed}\nANNA\nZOÉ\nBERTA\n") == NameList(
        ["ZOÉ", "ANNA", "BERTA"], 1
    )


def test_repeated_names_are_dropped_and_counted(tmp_path: Path) -> None:
    assert read_text(tmp_path, "B\nA\nB\nC\n A\nB\n") == NameList(["B", "A", "C"], 3)


def test_names_that_differ_in_case_are_different(tmp_path: Path) -> None:
    assert read_text(tmp_path, "anna\nAnna\nANNA\n").duplicates == 0


@few
@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf"])), min_size=3))
def test_names_are_clean_distinct_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    expected: list[str] = []
    for line in lines:
        name = unicodedata.normalize("NFC", line).strip()
        assume(not SUSPECT.search(name))
        if name and name not in expected:
            expected.append(name)
    path = put(tmp_path_factory.mktemp("names"), "names.txt", "\ufeff" + "\n".join(lines))
    if len(expected) >= 3:
        assert read_names(path).names == expected
    else:
        with refused(path):
            read_names(path)


@pytest.mark.parametrize("suffix", ["txt", "names", "csv", "CSV", "tsv"])
@pytest.mark.parametrize("packing", ["", ".gz", ".zip", ".GZ", ".ZIP", ".bz2", ".xz"])
def test_every_format_is_read_plain_and_packed(tmp_path: Path, suffix: str, packing: str) -> None:
    table = suffix.lower() in {"csv", "tsv"}
    text = CSV if table else TEXT
    text = text.replace(",", "\t") if suffix == "tsv" else text
    content = {
        "": text.encode(),
        ".gz": gzip.compress(text.encode()),
        ".zip": zipped((f"folder/names.{suffix}", text)),
        ".bz2": bz2.compress(text.encode()),
        ".xz": lzma.compress(text.encode()),
    }[packing.lower()]
    path = put(tmp_path, f"list.{suffix}{packing}", content)
    assert read_names(path, "name" if table else None) == NameList(THREE, 0)


def test_the_file_inside_a_zip_determines_the_format(tmp_path: Path) -> None:
    path = put(tmp_path, "list.zip", zipped(("names.csv", CSV)))
    assert read_names(path, "name").names == THREE


def test_files_that_macos_adds_to_a_zip_are_ignored(tmp_path: Path) -> None:
    path = put(tmp_path, "n.zip", zipped(("d/", ""), ("d/n.txt", TEXT), ("__MACOSX/._n.txt", "x")))
    assert read_names(path).names == THREE


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_table_may_have_crlf_and_a_byte_order_mark(
    tmp_path: Path, line_end: str, mark: str
) -> None:
    table = mark + "name,count\nANNA,7\nBERTA,8\nCLARA,9\n".replace("\n", line_end)
    assert read_names(put(tmp_path, "n.csv", table), "name").names == THREE


def test_names_that_look_like_missing_values_or_numbers_survive(tmp_path: Path) -> None:
    odd = ["NA", "null", "nan", "NaN", "None", "N/A", "NULL", "True", "007", "1e3", "-inf", "#1"]
    table = "name,count\n" + "".join(f"{name},1\n" for name in odd)
    assert read_names(put(tmp_path, "n.csv", table), "name").names == odd


def test_quoted_names_are_read_and_empty_cells_skipped(tmp_path: Path) -> None:
    table = 'name,count\n"SMITH, ANNA",1\n,2\n"  ",3\n"B ""BEE"" B",4\n"CLARA",5\n'
    names = read_names(put(tmp_path, "n.csv", table), "name").names
    assert names == ["SMITH, ANNA", 'B "BEE" B', "CLARA"]


def test_a_row_that_ends_before_the_column_has_no_name(tmp_path: Path) -> None:
    path = put(tmp_path, "n.csv", "count,name\n1,A\n2\n3,B\n4,C\n")
    assert read_names(path, "name").names == ["A", "B", "C"]


@pytest.mark.parametrize("ending", [",", ",,", ", ,\t"])
def test_rows_may_end_with_more_empty_cells_than_the_header(tmp_path: Path, ending: str) -> None:
    rows = [f"{name},{count}{ending}\n" for count, name in enumerate(THREE)]
    path = put(tmp_path, "n.csv", "".join(["name,count\n", *rows]))
    assert read_names(path, "name").names == THREE


@pytest.mark.parametrize("name", ["none.txt", "none.csv", "none.txt.gz", "none.zip"])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    with refused(tmp_path / name, "does not exist"):
        read_names(tmp_path / name)


@pytest.mark.parametrize("name", ["folder", "folder.csv", "folder.gz", "folder.zip"])
def test_a_directory_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with refused(tmp_path / name, "cannot be read"):
        read_names(tmp_path / name, "name" if name.endswith("csv") else None)


def test_an_impossible_path_is_refused() -> None:
    with refused():
        read_names(Path("na\0mes.txt"))


@pytest.mark.parametrize(
    ("content", "held"),
    [
        ("", "no names"),
        (" \n\n\t\r\n", "no names"),
        ("ANNA\nANNA\n ANNA", "only one name"),
        ("ANNA\nBERTA\nANNA", "only 2 names"),
    ],
)
def test_fewer_than_three_names_are_refused(tmp_path: Path, content: str, held: str) -> None:
    with refused(tmp_path / "names.txt", held):
        read_text(tmp_path, content)


@pytest.mark.parametrize("content", ["", "\n", "name\n", "name,count\n,1\n"])
def test_a_table_without_names_is_refused(tmp_path: Path, content: str) -> None:
    path = put(tmp_path, "n.csv", content)
    with refused(path, "no names"):
        read_names(path, "name")


@pytest.mark.parametrize(
    ("content", "line", "byte"),
    [
        (b"ZO\xc9\nANNA\nBERTA\n", 1, "0xc9"),
        (b"ANNA\nBERTA\n\nZO\xe9\n", 4, "0xe9"),
        (b"ANNA\r\nBERTA\r\nZO\xff", 3, "0xff"),
    ],
)
def test_text_that_is_not_utf8_is_refused_with_its_line(
    tmp_path: Path, content: bytes, line: int, byte: str
) -> None:
    with refused(tmp_path / "names.txt", f", line {line}:", "not UTF-8", byte):
        read_text(tmp_path, content)


def test_the_line_that_is_not_utf8_is_right_after_a_byte_order_mark(tmp_path: Path) -> None:
    with refused(tmp_path / "names.txt", ", line 2:", "not UTF-8", "0xff"):
        read_text(tmp_path, b"\xef\xbb\xbfAB\n\xff\n")


@pytest.mark.parametrize("suffix", ["txt.gz", "zip"])
def test_packed_text_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path, suffix: str) -> None:
    packed = {"txt.gz": gzip.compress, "zip": lambda data: _zip_of_bytes("n.txt", data)}[suffix]
    path = put(tmp_path, f"n.{suffix}", packed(b"A\nB\nC\xe9\n"))
    with refused(path, ", line 3:", "not UTF-8"):
        read_names(path)


def _zip_of_bytes(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, data)
    return buffer.getvalue()


def test_the_error_for_a_missing_column_lists_the_columns(tmp_path: Path) -> None:
    path = put(tmp_path, "n.csv", CSV)
    with refused(path, "line 1: no column 'prenom'", "'count', 'name', 'sex' (split at commas)"):
        read_names(path, "prenom")


def test_a_table_needs_a_column(tmp_path: Path) -> None:
    path = put(tmp_path, "n.csv", CSV)
    with refused(path, "column", "'count', 'name', 'sex'"):
        read_names(path)


GZIP = gzip.compress(TEXT.encode() * 50, mtime=0)


@pytest.mark.parametrize(
    "content",
    [b"", b"no gzip at all", GZIP[:4], GZIP[:-9], GZIP[:-1], GZIP[:-8] + bytes(8), GZIP[:14] * 3],
    ids=["empty", "text", "head", "no sum", "no last byte", "wrong sum", "heads"],
)
def test_a_broken_gzip_is_refused(tmp_path: Path, content: bytes) -> None:
    path = put(tmp_path, "n.txt.gz", content)
    with refused(path):
        read_names(path)


@pytest.mark.parametrize(("suffix", "pack"), [("bz2", bz2.compress), ("xz", lzma.compress)])
def test_a_broken_bz2_or_xz_is_refused(
    tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]
) -> None:
    for content in (b"", b"no such thing", pack(TEXT.encode() * 50)[:-9]):
        path = put(tmp_path, f"n.txt.{suffix}", content)
        with refused(path):
            read_names(path)


@pytest.mark.parametrize(("suffix", "pack"), [("bz2", bz2.compress), ("xz", lzma.compress)])
def test_all_streams_of_a_bz2_or_xz_are_read(
    tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, padding = pack(b"ANNA\n" * 50), pack(b"BERTA\nCLARA\n"), bytes(8)
    damaged = bytes([second[0] ^ 1]) + second[1:]
    for block in (1, 7, 1 << 20):
        monkeypatch.setattr(names_module, "BLOCK", block)
        for content in (first + second, first + padding + second, first + second + padding):
            path = put(tmp_path, f"n.txt.{suffix}", content)
            assert read_names(path).names == THREE
        for content in (first + damaged, first + b"x", first + padding + second[:-1]):
            path = put(tmp_path, f"n.txt.{suffix}", content)
            with refused(path, "cannot be decompressed"):
                read_names(path)


def test_the_error_for_a_missing_list_that_dvc_tracks_says_how_to_restore_it(
    tmp_path: Path,
) -> None:
    put(tmp_path, "n.txt.dvc", "outs: []\n")
    with refused(f"n.txt does not exist; restore it: dvc checkout {tmp_path}/n.txt.dvc"):
        read_names(tmp_path / "n.txt")


def test_a_file_url_is_refused_with_its_path(tmp_path: Path) -> None:
    path = put(tmp_path, "n.txt", TEXT)
    with refused(f"is a URL; give the path alone: {path.as_posix()}"):
        read_names(path.as_uri())
    with refused("is a URL; give the path alone: C:/names/n.txt"):
        read_names("file:///C:/names/n.txt")


def test_a_git_lfs_pointer_is_refused(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    for name, column in (("n.txt", None), ("n.csv", "name")):
        with refused(path := put(tmp_path, name, pointer), "git lfs pull"):
            read_names(path, column)


def test_lines_are_counted_with_any_line_ending(tmp_path: Path) -> None:
    path = put(tmp_path, "n.txt", b"A\rB\r\nC\nD\n\rE\rRen\xe9e\rF\n")
    with refused(path, "line 7: not UTF-8"):
        read_names(path)


def test_a_zip_names_its_files_if_there_are_several(tmp_path: Path) -> None:
    path = put(tmp_path, "n.zip", zipped(("a.txt", TEXT), ("b.txt", TEXT)))
    with refused(path, "contains 2 files ('a.txt', 'b.txt')"):
        read_names(path)
    files = ("d/.DS_Store", "x"), ("desktop.ini", "x"), ("a.txt", TEXT)
    assert read_names(put(tmp_path, "m.zip", zipped(*files))).names == THREE


ZIP = zipped(("n.txt", TEXT))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no zip at all",
        ZIP[:-30],
        ZIP[:40] + b"????" + ZIP[44:],
        zipped(("n.txt", TEXT), compression=zipfile.ZIP_STORED).replace(b"ANNA", b"ANNE", 1),
        ZIP.replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"),
        ZIP.replace(b"\x08\x00", b"\x63\x00"),
    ],
    ids=["empty", "garbage", "cut", "data", "checksum", "encrypted", "unknown compression"],
)
def test_a_broken_zip_is_refused(tmp_path: Path, content: bytes) -> None:
    assert content != ZIP
    path = put(tmp_path, "n.zip", content)
    with refused(path):
        read_names(path)


@pytest.mark.parametrize(
    ("members", "held"),
    [([("a.txt", TEXT), ("b.txt", TEXT)], "2 files"), ([], "0 files"), ([("d/", "")], "0 files")],
)
def test_a_zip_must_contain_just_one_file(
    tmp_path: Path, members: list[tuple[str, str]], held: str
) -> None:
    path = put(tmp_path, "n.zip", zipped(*members))
    with refused(path, held):
        read_names(path)


def test_a_broken_lzma_zip_is_refused(tmp_path: Path) -> None:
    whole = zipped(("n.txt", TEXT * 50), compression=zipfile.ZIP_LZMA)
    path = put(tmp_path, "n.zip", whole[:60] + b"\xff" * 8 + whole[68:])
    with refused(path):
        read_names(path)


def test_a_zip_with_a_broken_file_name_is_refused(tmp_path: Path) -> None:
    whole = zipped(("né.txt", TEXT))
    path = put(tmp_path, "n.zip", whole.replace("é".encode(), b"\xc3\xc3"))
    with refused(path):
        read_names(path)


@few
@given(st.sampled_from([".txt.gz", ".zip"]), st.integers(0, 10_000), st.binary(max_size=4))
def test_no_damage_to_a_packed_file_raises_another_error(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, place: int, damage: bytes
) -> None:
    whole = {".txt.gz": GZIP, ".zip": ZIP}[suffix]
    place %= len(whole)
    broken = whole[:place] + damage + whole[place + len(damage) + 1 :]
    path = put(tmp_path_factory.mktemp("broken"), f"n{suffix}", broken)
    listed = taken_or_refused(lambda: read_names(path), path)
    assert listed is None or len(listed.names) >= 3


@pytest.mark.parametrize("block", [1, 2, 3, 7, 64])
@few
@given(
    content=st.lists(
        st.sampled_from(
            [*'AB\n\r\t ,"', "\u200b", "É", "E\u0301", "𝔸", "\r\n", "\u2028", "\x00", "\xa0"]
        ).map(str.encode)
        | st.sampled_from([b"name\n", b"\xff", b"\xc3", b"\xef\xbb\xbf", b"A\nB\nC\n"]),
        max_size=30,
    ).map(b"".join),
    suffix=st.sampled_from([".txt", ".csv", ".txt.gz", ".txt.gz broken", ".zip"]),
)
def test_blocks_of_any_size_give_the_same_names_or_the_same_error(
    tmp_path_factory: pytest.TempPathFactory, block: int, content: bytes, suffix: str
) -> None:
    """Read a file at once, and a few bytes and rows at a time."""
    suffix, _, broken = suffix.partition(" ")
    if suffix.endswith(".gz"):
        content = gzip.compress(content, mtime=0)[: -1 if broken else None]
    elif suffix == ".zip":
        content = _zip_of_bytes("n.txt", content)
    elif suffix == ".csv":
        content = b"name,x\n" + content
    path = put(tmp_path_factory.mktemp("blocks"), f"n{suffix}", content)

    def outcome() -> NameList | str:
        try:
            return read_names(path, "name" if suffix == ".csv" else None)
        except InputError as error:
            return str(error)

    whole = outcome()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(names_module, "BLOCK", block)
        assert outcome() == whole


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"A\x00B\nA\nB\xff\nC\n", "line 3: not UTF-8"),
        (b"A\nA\n" * 100 + b"\xff", "line 201: not UTF-8"),
        (b"A\r\nB\rC\n" * 100 + b"A\x07B\n", "line 301: 'A\\x07B' contains a control"),
    ],
)
def test_an_error_is_reported_with_its_line_anywhere_in_the_file(
    tmp_path: Path, content: bytes, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names_module, "BLOCK", 8)
    with refused(tmp_path / "names.txt", said):
        read_text(tmp_path, content)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("names", [THREE, ["Élodie, la belle", "Anaïs", "Zoé"]])
def test_a_table_from_a_spreadsheet_may_have_semicolons(
    tmp_path: Path, mark: str, names: list[str]
) -> None:
    text = mark + "Prénom;Année\n" + "".join(f"{name};1,5\n" for name in names)
    path = put(tmp_path, "n.csv", text)
    assert read_names(path, "Prénom").names == names
    with refused(path, "line 1: no column 'prenom'", "'Prénom', 'Année' (split at semicolons)"):
        read_names(path, "prenom")


def test_a_semicolon_in_a_table_with_commas_is_part_of_its_cell(tmp_path: Path) -> None:
    path = put(tmp_path, "n.csv", "name;s,count\nA;B,1\nC,2\nD,3\n")
    assert read_names(path, "name;s").names == ["A;B", "C", "D"]


@pytest.mark.parametrize("name", ["names.xlsx", "names.csv", "names.txt"])
def test_a_workbook_is_reported_as_one(tmp_path: Path, name: str) -> None:
    path = put(tmp_path, name, zipped(("xl/sheet1.xml", "<x>" * 999)) + b"\xff")
    column = "name" if name.endswith(".csv") else None
    with refused(path, "not UTF-8", "workbook", "save the table as CSV UTF-8"):
        read_names(path, column)


@POSIX
def test_a_list_in_utf_16_is_reported_as_such(tmp_path: Path) -> None:
    path = put(tmp_path, "names.txt", TEXT.encode("utf-16"))
    with refused(path, "UTF-16", f"iconv -f UTF-16 -t UTF-8 {path} > {tmp_path}/names-utf8.txt"):
        read_names(path)


def test_the_command_that_converts_a_list_uses_python_on_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path, "the names.txt", TEXT.encode("utf-16"))
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(InputError) as caught:
        read_names(path)
    *_, command = str(caught.value).partition("for example: python ")
    subprocess.run([sys.executable, *shlex.split(command)], check=True)
    converted = tmp_path / "the names-utf8.txt"
    assert read_names(converted) == read_names(put(tmp_path, "names.txt", TEXT.encode()))


@POSIX
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("names", [THREE, ["Мария", "Анна", "Людмила"], ["张伟", "王芳", "李娜"]])
@pytest.mark.parametrize("suffix", ["txt", "csv"])
def test_utf_16_without_a_byte_order_mark_is_reported_as_such(
    tmp_path: Path, encoding: str, names: list[str], suffix: str
) -> None:
    path = put(tmp_path, f"n.{suffix}", "\n".join(["name", *names, ""]).encode(encoding))
    with refused(path, f"iconv -f {encoding.upper().replace('16-', '16')} -t UTF-8 {path}"):
        read_names(path, "name" if suffix == "csv" else None)


def archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        file.addfile(tarfile.TarInfo("names.txt"))
    return buffer.getvalue()


NO_TEXT = [
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "a workbook"),  # .xls
    (b"PK\3\4\x14\0\0\x08" + bytes(100), "a workbook"),  # .ods
    (b"%PDF-1.7\n%\xe2\xe3\n", "a PDF"),
    (b"SQLite format 3\0\x10\0\1\1", "a database"),
    (gzip.compress(TEXT.encode()), "gzip"),
    (bz2.compress(TEXT.encode()), "bzip2"),
    (lzma.compress(TEXT.encode()), "xz"),
    (b"7z\xbc\xaf\x27\x1c\0\4", "7-Zip"),
    (archive(), "tar"),
]


@pytest.mark.parametrize(("content", "kind"), NO_TEXT, ids=[kind for _, kind in NO_TEXT])
@pytest.mark.parametrize("suffix", ["txt", "csv"])
def test_files_that_are_not_text_are_reported_by_their_format(
    tmp_path: Path, content: bytes, kind: str, suffix: str
) -> None:
    path = put(tmp_path, f"n.{suffix}", content)
    with refused(f"{path} is not UTF-8, but", kind):
        read_names(path, "name" if suffix == "csv" else None)


def test_the_advice_for_a_list_that_is_not_utf8_names_other_encodings(tmp_path: Path) -> None:
    path = put(tmp_path, "names.txt", "Мария\nАнна\nЛюдмила\n".encode("cp1251"))
    with refused(path, "line 1: not UTF-8", "CP1251 for Cyrillic", "GB18030 for Chinese"):
        read_names(path)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("O\u2019Brien".encode("cp1252"), "(U+0092), probably from CP1252 read as Latin-1"),
        ("ZO\u00c9".encode(), "(U+0089), probably from UTF-8 read as Latin-1 ('ZO\u00c9')"),
    ],
)
def test_a_control_character_from_a_wrong_conversion_is_explained(
    tmp_path: Path, name: bytes, said: str
) -> None:
    with refused("line 4:", "contains a control character", said):
        read_text(tmp_path, f"{TEXT}{name.decode('latin-1')}\n")


@pytest.mark.parametrize("suffix", ["txt", "csv"])
def test_two_byte_order_marks_at_the_start_do_not_matter(tmp_path: Path, suffix: str) -> None:
    text = '"name",x\n"ANNA",1\n"BERTA",1\n"CLARA",1\n' if suffix == "csv" else TEXT
    path = put(tmp_path, f"n.{suffix}", f"\ufeff\ufeff{text}")
    assert read_names(path, "name" if suffix == "csv" else None).names == THREE


def test_a_command_in_an_error_quotes_its_path(tmp_path: Path) -> None:
    path = put(tmp_path, "names (1).txt", b"ZO\xc9\n")
    with refused(path, f"-t UTF-8 '{path}' > '{tmp_path}/names (1)-utf8.txt'"):
        read_names(path)


def test_a_path_may_start_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    put(tmp_path, "names.txt", TEXT)
    assert read_names(Path("~/names.txt")).names == THREE
    with refused("~nobody-here/names.txt does not exist"):
        read_names(Path("~nobody-here/names.txt"))
    put(tmp_path, "~nobody-here", TEXT)
    assert read_names(Path("~nobody-here")).names == THREE


@pytest.mark.parametrize(
    "url", ["https://example.com/n.txt", "s3://bucket/a%20b.csv", "HTTP://example.com/n.txt?a=1&b"]
)
def test_a_url_is_refused_with_how_to_fetch_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for system, quote in ((sys.platform, "'"), ("win32", '"')):
        monkeypatch.setattr("sys.platform", system)
        quoted = f"{quote}{url}{quote}" if "&" in url else url
        for path in (url, Path(url)):
            with refused(f"{url} is a URL", f"dvc import-url {quoted} data/"):
                names_module.read_names(path)


@pytest.mark.parametrize("suffix", ["txt", "txt.gz"])
def test_a_list_that_grows_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(names_module, "BLOCK", 8)
    content = TEXT.encode() * 500
    path = put(tmp_path, f"n.{suffix}", gzip.compress(content) if "gz" in suffix else content)
    blocks = names_module.name_blocks(path)
    with refused(path, "changed while it was being read"):
        for _ in blocks:  # would not end while something is being written
            with path.open("ab") as file:
                file.write(b"HALF A NAME")


@pytest.mark.parametrize("suffix", ["txt", "csv"])
def test_names_may_be_of_any_length(tmp_path: Path, suffix: str) -> None:
    names = [letter * 200_000 for letter in "ABC"]
    path = put(tmp_path, f"n.{suffix}", "\n".join(["name,x", *names] if suffix == "csv" else names))
    found = read_names(path, "name" if suffix == "csv" else None)
    assert found.names == names


def test_a_byte_order_mark_in_the_middle_is_dropped_and_reported(tmp_path: Path) -> None:
    path = put(tmp_path, "n.txt", f"\ufeff{TEXT}\ufeff{TEXT}DORA\u200b\u200b\n".encode())
    with (tmp_path / "target").open("w+b") as target:
        found = names_module.gather_names(path, None, True, target)
    assert (found.count, found.duplicates) == (4, 3)
    assert found.tally.remarks() == ["dropped invisible characters: U+200B (2), U+FEFF (1)"]


@pytest.mark.parametrize(
    "name", ["names.json", "names.JSONL", "names.json.gz", "names.xml", "names.yaml"]
)
def test_other_formats_are_refused(tmp_path: Path, name: str) -> None:
    content = b'[\n"ANNA",\n"BERTA",\n"CLARA"\n]\n'
    path = put(tmp_path, name, gzip.compress(content) if name.endswith(".gz") else content)
    kind = name.upper().removesuffix(".GZ").rpartition(".")[2]
    with refused(path, f"is {kind}; ", "one name per line"):
        read_names(path)
