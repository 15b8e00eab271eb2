"""Tables as found in practice: separators, headings, quotes, and rows that do not fit."""

import csv
import io
import tempfile
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from charlm.names import reading, tables
from charlm.names.invisible import clean
from charlm.names.reading import NamesFound, gather_names, name_blocks
from charlm.names.tables import SEPARATORS, looks_like_table
from tests.helpers import few, read_names, refused
from tests.unit.names.test_names import THREE, put

US = "".join(f"{name},F,{count}\n" for name, count in zip(THREE, (7065, 612, 5), strict=True))
"""Rows from the list of the US Social Security Administration, which has no headings."""


def found_in(path: Path, column: str | int | None = None, header: bool = True) -> NamesFound:
    with tempfile.TemporaryFile() as file:
        return gather_names(path, column, header, file)


@pytest.mark.parametrize("stray", ['"THE BOSS', '"THE" BOSS', '"A,B'])
@pytest.mark.parametrize("suffix", ["csv", "txt"])
def test_a_stray_quote_in_any_column_is_refused_with_its_line(
    tmp_path: Path, stray: str, suffix: str
) -> None:
    rows = [f"{number},NAME{number},x" for number in range(400)]
    rows[10], rows[210] = f"10,NAME10,{stray}", '210,NAME210,"x'
    path = put(tmp_path, f"n.{suffix}", "\n".join(["id,name,note", *rows]))
    with refused(
        f"{path}, line 12: a quoted cell", "remove stray quotes", 'double each quote inside it ("")'
    ):
        read_names(path, "name")


def test_a_quoted_cell_on_two_lines_is_refused_with_its_line(tmp_path: Path) -> None:
    path = put(tmp_path, "n.csv", 'name,address\nA,x\nB,"1 Road\n2 Town"\nC,x\n')
    with refused(f"{path}, line 3: a quoted cell does not end on its line"):
        read_names(path, "name")


@pytest.mark.parametrize("suffix", ["tsv", "csv", "txt"])
def test_quotes_between_tabs_are_part_of_the_name(tmp_path: Path, suffix: str) -> None:
    names = ['"Weird Al" Yankovic', '"', "O'NEIL", '""A""']
    rows = [f'{number}\t{name}\t"x\n' for number, name in enumerate(names)]
    path = put(tmp_path, f"n.{suffix}", "".join(["n\tname\tnote\n", *rows]))
    assert read_names(path, "name").names == names


def test_names_all_in_quotes_between_tabs_are_noted(tmp_path: Path) -> None:
    path = put(tmp_path, "n.tsv", '"id"\t"name"\n"1"\t"A"\n"2"\t"B"\n"3"\t"C"\n')
    (remark,) = found_in(path, '"name"').tally.remarks()
    assert "the names are in quotes, which are kept" in remark
    path = put(tmp_path, "n.tsv", f"{path.read_text()}4\tD\n")
    assert found_in(path, '"name"').tally.remarks() == []


def test_a_space_before_a_quote_is_ignored(tmp_path: Path) -> None:
    path = put(tmp_path, "n.csv", 'id, name\n1, "SMITH, ANNA"\n2, B\n3,\t"C"\n4, D "D" D\n')
    assert read_names(path, "name").names == ["SMITH, ANNA", "B", '"C"', 'D "D" D']


@pytest.mark.parametrize("suffix", ["csv", "tsv", "txt"])
@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("column", ["name", 2])
def test_the_separator_is_found_with_any_suffix(
    tmp_path: Path, suffix: str, separator: str, column: str | int
) -> None:
    table = "".join(f"x{separator}{name}{separator}3\n" for name in ["name", *THREE])
    path = put(tmp_path, f"n.{suffix}", table)
    assert read_names(path, column).names == THREE
    with refused(path, f"'x', 'name', '3' (split at {SEPARATORS[separator]})"):
        read_names(path, "Name")


@pytest.mark.parametrize("stated", ["sep=;", '"sep=;"', "\ufeffSEP=;\r", "\n\nsep=;"])
def test_a_stated_separator_is_used_and_is_not_a_row(tmp_path: Path, stated: str) -> None:
    path = put(tmp_path, "n.csv", f"{stated}\na,b,c;name\n1,2,3;A\n1;B\n1;C\n")
    found = found_in(path, "name")
    assert (found.count, found.tally.rows) == (3, 3)
    path = put(tmp_path, "n.csv", f"{stated.replace(';', '^')}\na,b^name\n1^A,B\n1^B\n1^C\n")
    assert read_names(path, "name").names == ["A,B", "B", "C"]
    path = put(tmp_path, "n.tsv", "sep=\t\na,b\tname\n1\tA\n1\tB\n1\tC\n")
    assert read_names(path, 2).names == ["A", "B", "C"]


@pytest.mark.parametrize(
    "table",
    [
        '"Name, first";year, in all\nA;1\nB;2\nC;3\n',
        "Name, first\tyear, in all\nA\t1\nB\t2\nC\t3\n",
        'year, or so,"Name, first"\n1,,A\n2,,B\n3,,C\n',
        '"one;two","Name, first"\n1,A\n2,B\n3,C\n',
    ],
)
def test_a_heading_may_contain_other_separators(tmp_path: Path, table: str) -> None:
    path = put(tmp_path, "n.csv", table)
    assert read_names(path, "Name, first").names == ["A", "B", "C"]


def test_the_separator_is_one_that_fits_all_rows(tmp_path: Path) -> None:
    path = put(tmp_path, "n.csv", "name; and more,count\nA,1\nB,2\nC,3\n")
    assert read_names(path, 1).names == ["A", "B", "C"]


def test_of_two_fitting_separators_the_one_that_gives_the_heading_is_used(
    tmp_path: Path,
) -> None:
    path = put(tmp_path, "n.csv", "name;s,count\nA;B,1\nC;D,2\nE;F,3\n")
    assert read_names(path, "name").names == ["A", "C", "E"]
    assert read_names(path, "name;s").names == ["A;B", "C;D", "E;F"]


def test_a_tsv_is_split_at_tabs_even_if_another_separator_fits(tmp_path: Path) -> None:
    path = put(tmp_path, "n.tsv", "id,x\tname\n1,2\tA\n1,2\tB\n1,2\tC\n")
    assert read_names(path, 2).names == ["A", "B", "C"]


def test_two_fitting_separators_are_refused_unless_one_is_stated(tmp_path: Path) -> None:
    path = put(tmp_path, "n.csv", "A;1,5\nB;2,5\nC;3,5\n")
    with refused(path, "commas or semicolons", "sep=;"):
        read_names(path, 1, header=False)
    path = put(tmp_path, "n.csv", "sep=;\n" + path.read_text())
    assert read_names(path, 1, header=False).names == ["A", "B", "C"]


@pytest.mark.parametrize("heading", [" name", "name ", "\u00a0name\u00a0", "\u200bname", '" name"'])
@pytest.mark.parametrize("column", ["name", " name", "\ufeffname\u00a0"])
def test_spaces_around_a_heading_do_not_matter(tmp_path: Path, heading: str, column: str) -> None:
    path = put(tmp_path, "n.csv", f"id,{heading}\n1,A\n2,B\n3,C\n")
    assert read_names(path, column).names == ["A", "B", "C"]
    with refused(path, "'id', 'name'"):
        read_names(path)


def test_of_two_equal_headings_one_is_chosen_by_number(tmp_path: Path) -> None:
    path = put(tmp_path, "n.csv", "name,id,id, name\nA,1,1,D\nB,2,2,E\nC,3,3,F\n")
    with refused(f"{path}, line 1: columns 1 and 4 have the heading 'name'", "number"):
        read_names(path, "name")
    assert read_names(path, 4).names == ["D", "E", "F"]


def test_a_number_in_quotes_is_a_heading(tmp_path: Path) -> None:
    path = put(tmp_path, "n.csv", "2,1\nA,D\nB,E\nC,F\n")
    assert read_names(path, "1").names == ["D", "E", "F"]
    assert read_names(path, 1).names == ["A", "B", "C"]
    with refused(f"{path}, line 1: no column number 3; there are 2: '2', '1'"):
        read_names(path, 3)


def test_a_table_of_many_columns_shows_some(tmp_path: Path) -> None:
    path = put(tmp_path, "n.csv", ",".join(f"c{number}" for number in range(1000)) + "\n")
    with refused(path, "'c19' and 980 more (split at commas)"):
        read_names(path, "name")


@pytest.mark.parametrize("suffix", ["txt", "csv", "dat"])
def test_a_table_without_headings_is_read_by_column_number(tmp_path: Path, suffix: str) -> None:
    path = put(tmp_path, f"yob2020.{suffix}", US)
    assert read_names(path, 1, header=False).names == THREE
    with refused(
        path, "without headings, column must be the number", "1 to 3", "'ANNA', 'F', '7065'"
    ):
        read_names(path, "name", header=False)
    with refused(path, "no column 'name'", "if these are not headings, set header to false"):
        read_names(path, "name")


def test_a_first_name_read_as_a_heading_is_noted(tmp_path: Path) -> None:
    path = put(tmp_path, "yob2020.txt", f"{US}DORA,F,5\n")
    (remark,) = found_in(path, 1).tally.remarks()
    assert "line 1: the heading of column 1 is 'ANNA'; if that is a name, set names.heade" in remark
    assert found_in(path, 1, header=False).tally.remarks() == []


@pytest.mark.parametrize(
    ("text", "table"),
    [
        (US, "a table of 3 columns, separated by commas"),
        ("A;1\nB;2\n\nC;3\n", "a table of 2 columns, separated by semicolons"),
        ("A\tF\nB\tF\nC\tM\n", "a table of 2 columns, separated by tabs"),
        ('1|"A|B"\n2|C\n3|D\n', "a table of 2 columns, separated by vertical bars"),
        ("Smith, Anna\nJones, Berta\nMiller, Clara\n", None),
        ("Anna\nBerta\nClara\n", None),
        ("A,B\nC\nD,E\n", None),
        ("A,B\nC,D\nE\nF\n", None),
    ],
)
def test_text_that_looks_like_a_table_is_noted_and_accepted(
    tmp_path: Path, text: str, table: str | None
) -> None:
    path = put(tmp_path, "n.txt", text)
    assert read_names(path).names == [line for line in text.splitlines() if line]
    remarks = found_in(path).tally.remarks()
    assert len(remarks) == (table is not None)
    assert all(f"{table}; if it is a table, set names.column" in remark for remark in remarks)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("SMITH, ANNA,5", "line 3: 3 cells, but line 1 has 2; put a cell that contains a ','"),
        ("A,1,,x", "line 3: 4 cells"),
    ],
)
def test_a_row_with_more_cells_than_the_first_is_refused(
    tmp_path: Path, row: str, reason: str
) -> None:
    path = put(tmp_path, "n.csv", f"name,count\nA,1\n{row}\nC,3\nD,4\n")
    with refused(path, reason):
        read_names(path, "name")


def test_rows_with_fewer_cells_are_counted_and_the_first_ones_named(tmp_path: Path) -> None:
    rows = [*(f"1,NAME{n},x" for n in range(9)), "1,SMITH", "", "(9 rows)", ",,", *["1"] * 1200]
    path = put(tmp_path, "n.csv", "\n".join(["id,name,note", *rows]))
    (remark,) = found_in(path, "name").tally.remarks()
    assert remark.startswith(f"{path}: lines 11, 13, 15 and 1,199 more: fewer cells than in line 1")
    path = put(tmp_path, "n.csv", "id,name\n1,A\n2,B\n3,C\n4\n")
    (remark,) = found_in(path, "name").tally.remarks()
    assert remark.startswith(f"{path}: line 5: fewer cells")


def test_a_separator_that_may_be_part_of_the_name_is_noted(tmp_path: Path) -> None:
    rows = ["A,F,", "Smith, Anna,", '"Smith, Berta",F,', "C,F,", "D,F, x"]
    path = put(tmp_path, "n.csv", "\n".join(["name,sex,note", *rows]))
    (remark,) = found_in(path, "name").tally.remarks()
    assert f"{path}: line 3: a space after the ',' that ends the name" in remark
    path = put(tmp_path, "n.csv", "name, sex\nA, F\nB, F\nC, F\nD,F\n")
    assert found_in(path, "name").tally.remarks() == []
    path = put(tmp_path, "n.csv", "A, F, 3\nB, F, 2\nC, F, 1\n")
    assert found_in(path, 1, header=False).tally.remarks() == []
    surnames_first = "Smith, Anna\nMiller, Bob\nBrown, Al\n"
    for text, column in ((f"name,sex\n{surnames_first}", "name"), (surnames_first, 1)):
        path = put(tmp_path, "n.csv", text)
        (remark,) = found_in(path, column, header=column == "name").tally.remarks()
        assert "a space after the ',' that ends the name" in remark


@pytest.mark.parametrize("separator", [", ", "; ", "|"])
def test_a_tsv_with_one_column_is_not_split(tmp_path: Path, separator: str) -> None:
    names = [f"{name}{separator}X" for name in THREE]
    path = put(tmp_path, "n.tsv", "\n".join(names))
    assert read_names(path, 1, header=False).names == names
    path = put(tmp_path, "n.tsv", "\n".join([f"Name{separator}full", *names]))
    assert read_names(path, f"Name{separator}full").names == names
    assert read_names(path, 1).names == names


@pytest.mark.parametrize("again", ["n,name,sex", "sex,n,name"])
def test_tables_joined_with_other_columns_are_refused(tmp_path: Path, again: str) -> None:
    rows = ["name,sex,n", "A,F,1", "B,F,2", "C,F,3", again, "x,y,z"]
    path = put(tmp_path, "n.csv", "\n".join(rows))
    with refused(path, "line 5: the headings of line 1 in a different order"):
        read_names(path, "name")
    path = put(tmp_path, "n.csv", "\n".join([*rows[:4], ",,", "n,,"]))
    assert read_names(path, "name").names == ["A", "B", "C", "n"]


@pytest.mark.parametrize("again", ["name,sex", "\ufeffname,sex", " name ,sex"])
def test_repeated_headings_in_joined_tables_are_skipped_and_noted(
    tmp_path: Path, again: str
) -> None:
    rows = ["A,F", "B,F", again, "C,F", "name,F", "D,F"]
    path = put(tmp_path, "n.csv", "\n".join([again.removeprefix("\ufeff"), *rows]))
    found = found_in(path, "name")
    assert (found.count, found.empty, found.tally.rows) == (5, 1, 6)
    assert found.tally.notes == [f"{path}: line 4: repeated headings, skipped"]
    assert read_names(path, "name").names == ["A", "B", "C", "name", "D"]


def test_the_error_for_commas_in_the_only_column_suggests_quotes(tmp_path: Path) -> None:
    path = put(tmp_path, "n.csv", "name\nSmith, Anna\nSmith, Berta\nSmith, Clara\n")
    with refused(
        path, "if line 1 is a title, remove it; otherwise, put a cell that contains a ','"
    ):
        read_names(path, "name")


def test_a_title_above_the_headings_is_reported_as_one(tmp_path: Path) -> None:
    path = put(tmp_path, "n.csv", "Names of 2020\n\n\nname;sex\nA;F\nB;F\nC;F\n")
    with refused(path, "no column 'name'; if the headings are 'name;sex', remove"):
        read_names(path, "name")
    remark = "a table of 2 columns, separated by semicolons, below line 1; if line 1 is a title"
    assert remark in found_in(path, 1).tally.remarks()[1]
    path = put(tmp_path, "n.csv", path.read_text().replace(";", ","))
    with refused(path, "line 4: 2 cells, but line 1 has 1; if line 1 is a title, remove it"):
        read_names(path, 1)
    path = put(tmp_path, "n.csv", "Names of 2020,\nname,sex\nA,F\nB,F\nC,F\n")
    remark = f"{path}: the row below line 1 looks like headings; if line 1 is a title, remove it"
    assert found_in(path, 1).tally.remarks()[1:] == [remark]
    path = put(tmp_path, "n.csv", "name\nname\nA\nB\nC\n")
    assert found_in(path, "name").tally.remarks() == [f"{path}: line 2: repeated headings, skipped"]


@pytest.mark.parametrize("invisible", ["\u200b", "\ufeff", "\ufeff\u200e"])
@pytest.mark.parametrize("blank", ["", " "])
def test_invisible_characters_around_quotes_do_not_matter(
    tmp_path: Path, invisible: str, blank: str
) -> None:
    cells = ['{}"SMITH, ANNA"', '"SMITH, BERTA"{}', '{}"A ""B"" C"{}', "D{}"]
    cells = [cell.format(*[f"{invisible}{blank}"] * 2) for cell in cells]
    table = f'{invisible}"id"{invisible},name\n' + "".join(f"1,{cell}\n" for cell in cells)
    path = put(tmp_path, "n.csv", table)
    found = found_in(path, "name")
    assert read_names(path, "name").names == ["SMITH, ANNA", "SMITH, BERTA", 'A "B" C', "D"]
    assert sum(found.tally.invisible.values()) == 5 * len(invisible)


@pytest.mark.parametrize("cell", ['"\u200b', '"A\u200b', '"A"\u200bB'])
def test_stray_quotes_beside_invisible_characters_are_refused(tmp_path: Path, cell: str) -> None:
    path = put(tmp_path, "n.csv", f"id,name\n1,A\n2,B\n3,{cell}\n4,C\n")
    with refused(f"{path}, line 4: a quoted cell"):
        read_names(path, "name")


def test_every_row_is_accounted_for(tmp_path: Path) -> None:
    path = put(tmp_path, "n.csv", "id,name\n1,A\n\n2,B\n3,\n4\n5,A\n,C\n6,\u200b\n\n")
    found = found_in(path, "name")
    assert (found.count, found.duplicates, found.empty) == (3, 1, 5)
    assert (found.tally.rows, found.tally.unit) == (9, "row")
    path = put(tmp_path, "n.tsv", "\n1\tA\n\t\n2\tB\n3\tC\n")
    found = found_in(path, 2, header=False)
    assert (found.count, found.empty, found.tally.rows) == (3, 2, 5)
    path = put(tmp_path, "n.txt", "A\nB\n\nA\n \nC\n")
    found = found_in(path)
    assert (found.count, found.duplicates, found.empty) == (3, 1, 2)
    assert (found.tally.rows, found.tally.unit) == (6, "line")


def test_an_error_has_the_line_of_the_file(tmp_path: Path) -> None:
    path = put(tmp_path, "n.csv", "\nsep=;\n\nid;name\n1;A\n\n2;B\x07\n")
    with refused(f"{path}, line 7: 'B\\x07' contains a control character"):
        read_names(path, "name")


@pytest.mark.parametrize(
    ("second", "later", "reason"),
    [
        (b"A\x07,1", b'B,"x', "line 102: a quoted cell"),
        (b'A,"x', b"\xff", "line 102: not UTF-8"),
        (b"A\x07,1", b"\xff", "line 102: not UTF-8"),
    ],
)
def test_an_error_of_the_whole_file_comes_before_one_in_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: bytes, later: bytes, reason: str
) -> None:
    monkeypatch.setattr(tables, "SAMPLE", 5)
    monkeypatch.setattr(reading, "BLOCK", 8)
    rows = [b"name,x", second, *[b"C,1"] * 99, later]
    path = put(tmp_path, "n.csv", b"\n".join(rows))
    with refused(path, reason):
        read_names(path, "name")


CELLS = st.text(
    st.sampled_from([*",;|\"'\t A1\u00c9"])
    | st.characters(codec="utf-8", exclude_categories=["C"]),
    max_size=8,
)


@few
@given(
    rows=st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=3, max_size=30),
    separator=st.sampled_from([*SEPARATORS]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    line_end=st.sampled_from(["\n", "\r\n", "\r"]),
    suffix=st.sampled_from(["csv", "tsv", "txt"]),
    header=st.booleans(),
)
def test_a_written_table_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[str, str, str]],
    separator: str,
    quoting: int,
    line_end: str,
    suffix: str,
    header: bool,
) -> None:
    table = io.StringIO(newline="")
    if separator == "\t":  # has no quoting
        rows = [tuple(cell.replace("\t", " ") for cell in row) for row in rows]
        for row in rows:
            table.write("\t".join(row) + line_end)
    else:
        writer = csv.writer(table, delimiter=separator, quoting=quoting, lineterminator=line_end)
        writer.writerows(rows)
    first = f"sep={separator}{line_end}"
    if header:
        first += separator.join(["id", "the name", "x"]) + line_end
    path = put(tmp_path_factory.mktemp("table"), f"n.{suffix}", first + table.getvalue())
    names = list(dict.fromkeys(filter(None, (clean(row[1]) for row in rows))))
    assume(len(names) >= 3)
    column = "the name" if header else 2
    assert read_names(path, column, header).names == names
    assert found_in(path, column, header).tally.rows == len(rows)


def test_text_that_states_a_separator_is_a_table(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("sep=;\nname;sex\nANNA;F\nBERTA;F\nCLARA;F\n")
    with refused("is a table, because its first line is sep=;; set names.column"):
        list(name_blocks(path))
    assert [*chain.from_iterable(name_blocks(path, "name"))] == ["ANNA", "BERTA", "CLARA"]


def test_text_without_headings_needs_the_number_of_a_column(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("ANNA,F\nBERTA,F\nCLARA,F\n")
    with refused("number"):
        list(name_blocks(path, None, header=False))


def test_a_few_odd_lines_do_not_hide_a_table() -> None:
    lines = ["Names of 2020", *(f"NAME{n},F,{n}" for n in range(50)), "A,B,7,065"]
    assert looks_like_table(lines) == "a table of 3 columns, separated by commas"
    assert looks_like_table([*lines, *["ANNA"] * 6]) == ""
