"""Lists with entries that are probably not names are accepted with a remark, others without one."""

import tempfile
from pathlib import Path

import pytest

from charlm.names.reading import gather_names
from charlm.names.suspicious import SHOWN, Suspects, looks_like_headings, other_format
from tests.helpers import refused
from tests.unit.names.test_names import put

NAMES = ["Mary", "Anna", "Berta", "Clara", "Dora", "Emma", "Frida", "Greta", "Ida", "Jana"]


def lines(pattern: str) -> str:
    """Return a line for each name, with its number."""
    return "".join(f"{pattern}\n".format(name, number) for number, name in enumerate(NAMES, 1))


def remarks(path: Path, column: str | int | None = None, header: bool = True) -> list[str]:
    with tempfile.TemporaryFile() as file:
        return gather_names(path, column, header, file).tally.remarks()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('"name" "sex"\n' + lines('"{1}" "{0}" "F"'), "write.csv(x, row.names = FALSE)"),
        ("name sex\n" + lines("{1} {0} F"), "a numbered list"),
        (lines("{1}. {0}"), "a numbered list"),
        (lines('"{0}"'), "names in quotes, which are kept"),
        (lines("'{0}'"), "names in quotes"),
        ("[\n" + lines('  "{0}",') + "]\n", "like JSON"),
        (lines('{{"name": "{0}", "sex": "F"}}'), "like JSON"),
        (lines('{{\n  "name": "{0}",\n  "sex": "F"\n}},'), "like JSON"),
        ("names:\n" + lines("- {0}"), "one line is '- Dora'"),
        ("names:\n" + lines("- name: {0}\n  sex: F"), "YAML"),
        (lines("INSERT INTO names VALUES ('{0}', 'F');"), "SQL"),
        ("INSERT INTO names VALUES\n" + lines("('{0}'),"), "SQL"),
        ("+---+\n| name |\n+---+\n" + lines("| {0} |") + "+---+\n", "Markdown"),
        ("<ul>\n" + lines("<li>{0}</li>") + "</ul>\n", "<li>"),
        (lines(r"\f0 {0}\par"), "another format instead of one name per line"),
        ("First name\n" + lines("{0}"), "'First name' is read as a name; if it is a heading"),
        ("Фамилия\n" + lines("{0}"), "is read as a name"),
        (lines("{0:<15}2.629  2.629{1:>7}"), "columns separated by spaces (one line is 'Emma "),
        (lines("{0} 2.629 2629 {1}"), "columns separated by spaces (one line is 'Emma 2.629 "),
        (lines("{0}   {1}"), "columns separated by spaces"),
        (lines("{0} {1}"), "columns separated by spaces"),
        (lines("{0} ({1})"), "columns separated by spaces"),
        (lines("   900 {0}"), "columns separated by spaces"),  # like the output of uniq -c
        (lines("“{0}”"), "names in quotes"),
        (lines("„{0}“"), "names in quotes"),
        (lines("« {0} »"), "names in quotes"),
        (lines("• {0}"), "one line is '• "),
        ("┌──┐\n" + lines("│ {0} │ {1} │"), "one line is '│ "),
        ("<!DOCTYPE html>\n<style>\nx\n</style>\n" + lines("{0}"), "like JSON"),
        ("BEGIN:VCARD\nVERSION:3.0\n" + lines("N:{0};;\nFN:{0}"), "contacts"),
        ("Name, Sex, Count\n" + lines("{0}, F, {1}"), "a table of 3 columns"),
        ("Name   Sex\n" + lines("{0:<6} F"), "columns separated by spaces"),
    ],
)
def test_text_in_another_format_is_noted(tmp_path: Path, text: str, said: str) -> None:
    path = put(tmp_path, "n.txt", text)
    first, *_ = remarks(path)
    assert first.startswith(str(path))
    assert said in first
    assert "\n" not in first


def test_the_format_is_not_judged_by_the_first_lines_alone(tmp_path: Path) -> None:
    """In a sorted list, the first lines are the odd ones."""
    odd = [*(f"'Abd {n} al-'" for n in range(150)), *(f"({n})" for n in range(150))]
    text = "\n".join([*odd, *(f"Anna {letter * n}" for n in range(1, 80) for letter in "abcdef")])
    assert remarks(put(tmp_path, "n.txt", text)) == []
    text = text.replace("\n", "\n1\t")
    assert remarks(put(tmp_path, "n.tsv", f"n\tname\n1\t{text}"), "name") == []
    table = "x\n" * 300 + "".join(f"Anna,{n}\n" for n in range(3000))
    (remark,) = remarks(put(tmp_path, "n.txt", table))
    assert "a table of 2 columns" in remark


@pytest.mark.parametrize("count", [300, 3000])
def test_a_numbered_list_of_any_length_is_noted(tmp_path: Path, count: int) -> None:
    text = "".join(f"{n}. Anna {n * n}\n" for n in range(1, count))
    (remark,) = remarks(put(tmp_path, "n.txt", text))
    assert "a numbered list" in remark
    (remark,) = remarks(put(tmp_path, "n.csv", f"name\n{text}"), "name")
    assert "a numbered list" in remark


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        *((rule, repr(rule)) for rule in ("-----+----", "====", "|---|---|", "...", "─┼─", "- -")),
        ("\\N", r"'\\N'"),
        *((others, repr(others)) for others in ("_PRENOMS_RARES", "ALL OTHER NAMES")),
        *((comment, repr(comment)) for comment in ("# Names of 2020", "-- names", "// names")),
        *(
            (rows, repr(rows))
            for rows in ("(30 rows)", "(1 row)", "(2 rows affected)", "(3 lignes)")
        ),
    ],
)
@pytest.mark.parametrize("suffix", ["txt", "csv"])
def test_rules_and_footers_of_databases_are_noted(
    tmp_path: Path, name: str, shown: str, suffix: str
) -> None:
    head, cell = ("name;x\n", ";1") if suffix == "csv" else ("", "")
    path = put(tmp_path, f"n.{suffix}", f"{head}{lines('{0}' + cell)}{name}{cell}\n")
    expected = f"{path}: probably not names: {shown}; if so, remove them from the list"
    assert remarks(path, "name" if head else None) == [expected]


def test_many_suspicious_names_are_counted_and_a_few_shown() -> None:
    suspects = Suspects()
    suspects.add(["-" * n for n in range(1, 1500)], set("-"))
    suspects.add(["-" * 1000, "ANNA", "D'ARCY", "-ANNA"], set("-AN"))
    (remark,) = suspects.remarks()
    assert remark.startswith(f"probably not names: '-', '--', '---' and {1500 - SHOWN:,} more;")
    long = Suspects()
    long.add(["-" * 10_000], set("-"))
    assert len(long.remarks()[0]) < 120


@pytest.mark.parametrize("cells", [['="Mary"'], [f'="{name}"' for name in NAMES]])
def test_texts_written_as_formulas_are_noted(tmp_path: Path, cells: list[str]) -> None:
    rows = [*NAMES[4:], *cells] if len(cells) == 1 else cells
    path = put(tmp_path, "n.csv", "name,sex\n" + "".join(f"{cell},F\n" for cell in rows))
    (remark,) = remarks(path, "name")
    assert (
        f"names written as spreadsheet formulas: '=\"Mary\"'{'' if rows != cells else ','}"
        in remark
    )


def test_characters_lost_in_a_conversion_are_noted(tmp_path: Path) -> None:
    path = put(tmp_path, "n.txt", lines("{0}") + "Ren\ufffd\nZo\ufffd\nZo\ufffd\n")
    (remark,) = remarks(path)
    assert "letters lost in a conversion (U+FFFD): 'Ren\ufffd', 'Zo\ufffd';" in remark


def test_utf8_read_as_cp1252_is_noted(tmp_path: Path) -> None:
    damaged = "Renée\nZoë\nMüller\nΜαρία\n".encode().decode("cp1252", errors="replace")
    path = put(tmp_path, "n.txt", lines("{0}") + damaged.rpartition("Î")[0])
    (remark,) = [it for it in remarks(path) if "UTF-8" in it]
    assert "read as another encoding: 'RenÃ©e' for 'Renée', 'ZoÃ«' for 'Zoë', " in remark


@pytest.mark.parametrize("name", ["Nguyễn", "Ẩn", "O’Neil", "ქეთი", "山田", "สมชาย", "Anna 😀"])
def test_multibyte_characters_read_as_cp1252_are_noted(tmp_path: Path, name: str) -> None:
    known = [it for it in name if "\ufffd" not in it.encode().decode("cp1252", errors="replace")]
    damaged = "".join(known).encode().decode("cp1252")
    (remark,) = remarks(put(tmp_path, "n.txt", lines("{0}") + damaged))
    assert f"read as another encoding: '{damaged}' for '{''.join(known)}';" in remark


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        *(("Renée", encoding) for encoding in ("cp1250", "mac_roman", "cp437", "cp850", "cp866")),
        *(("Zoë Müller", encoding) for encoding in ("mac_roman", "cp437", "cp850")),
        *(("Мария", encoding) for encoding in ("cp1251", "mac_roman", "cp437", "cp866")),
        *(("Łukasz", encoding) for encoding in ("mac_roman", "cp437", "cp850")),
        ("Jiří", "cp1250"),
        ("María", "cp1252"),  # í and à end in a byte that is dropped or replaced
        ("Sofía", "cp1250"),
        ("Nicolà", "cp1252"),
        ("Niccolà", "mac_roman"),
    ],
)
def test_utf8_read_as_another_encoding_is_noted(tmp_path: Path, name: str, encoding: str) -> None:
    damaged = name.encode().decode(encoding)
    found = remarks(put(tmp_path, "n.txt", lines("{0}") + damaged))
    (remark,) = [it for it in found if "UTF-8" in it]
    assert f" for '{name}';" in remark


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("O&#39;Neil", "HTML entities: 'O&#39;Neil'; decode"),
        ("O&#x27;Neil", "HTML entities: 'O&#x27;Neil'; decode"),
        ("Ren&eacute;e", "HTML entities: 'Ren&eacute;e'; decode"),
        ("B &amp; B", "HTML entities: 'B &amp; B'; decode"),
        ("Ren\\u00e9e", r"escape sequences of program code or URLs: 'Ren\\u00e9e'; replace"),
        ("Ren\\xe9e", r"escape sequences of program code or URLs: 'Ren\\xe9e'; replace"),
        ("Ren%C3%A9e", "escape sequences of program code or URLs: 'Ren%C3%A9e'; replace"),
        ("Anna%20Maria", "escape sequences of program code or URLs: 'Anna%20Maria'; replace"),
    ],
)
def test_escaped_characters_are_noted(tmp_path: Path, name: str, said: str) -> None:
    (remark,) = remarks(put(tmp_path, "n.txt", lines("{0}") + name))
    assert f"{said} them" in remark


ORDINARY = {
    "French": "Élodie|Anaïs|Jean-Luc|D'Arc|L'Hôpital|N'Golo|Zoé|Œdipe|Maëlys|Aÿa",
    "Portuguese": "JOÃO|CONCEIÇÃO|Mª José|GUIMARÃES|Antônio",
    "Polish": "Łukasz|Żaneta|Ścibor|Ćwikła",
    "Vietnamese": "Nguyễn Văn A|Trần Thị B|Đỗ",
    "Greek": "Ελένη|Γιώργος Π.|Σ. Κ.|Ζωή",
    "Russian": "Мария|Анна|Наталья|Фёдор",
    "Chinese": "张伟|王芳|李娜|阿卜杜拉·买买提",
    "Hebrew": "שרה|אברהם|צה\"ל|ג'ורג'",
    "Arabic": "محمد|فاطمة|عبد الله",
    "Hawaiian": "Ka‘ahumanu|Leʻa|Keali’i|É’lan",
    "emoji": "🚀|❤️|🐍|A🚀",
    "odd": "O'Brien|\"Weird Al\" Yankovic|(unknown)|Smith, Anna|AT&T|Yahoo!|C++|'t Hooft|*NSYNC",
    "products": "3M|747|iPhone 12 Pro|7-Eleven|Café™|NESCAFÉ®|MOËT®|737 MAX|320|319|318",
    "titles": "Dune: Part Two|Alien|(500) Days of Summer|[REC]|'71|9|8½|2001: A Space Odyssey",
    "abbreviations": "King Jr.|Mr. T.|J. R.",
    "surnames first": "Smith, Anna|Jones, Berta|Miller, J.",
    "handles": "@anna|@berta|@clara|#1|_ANNA|_anna_maria_",
    "models": "Boeing 747|Anna Maria|Airbus A320 200|Peugeot 206|Apollo 11|Blink 182",
    "numbers": "10 20 30|1 2 3|24 7 365|7 11 13|4 33|Six",
    "signs": "AT&T;|R&D|Q&A;|100%|50%20|%C|C:\\users|\\o/|A\\B|&c.|Rock &roll; B",
    "marks": "Café™|Lukáš“|“Zoé”|Renée’s|à la “carte”|Íñigo…|áº|Tomáš – x",
    "long": "|".join(f"{letter * 5000} x" for letter in "1234-a\"' "),
    "Cyrillic": "РЁПИН|СОНЯ|Рёва|Сімаков|Њего|Ђорђе|Јован|Ґ.",
    "DOS": "√2|≈ Anna|Anna – Ä|A ╨",
    "quoted": '"Bugs"|"Weird Al"|Anna|Berta',
}


@pytest.mark.parametrize("names", ORDINARY.values(), ids=ORDINARY)
def test_ordinary_lists_get_no_remark(tmp_path: Path, names: str) -> None:
    path = put(tmp_path, "n.txt", names.replace("|", "\n"))
    assert remarks(path) == []
    table = "name\tsex\n" + "".join(f"{name}\tF\n" for name in names.split("|"))
    assert remarks(put(tmp_path, "n.tsv", table), "name") == []
    table = "F\t" + names.replace("|", "\nF\t")
    assert remarks(put(tmp_path, "n.tsv", table), 2, header=False) == []


def test_the_format_is_not_judged_by_a_few_lines() -> None:
    assert other_format([], []) == other_format(['"A"', '"B"'], []) == ""
    assert other_format(['"A"'] * 3, []) != ""
    assert other_format(['"A"'] * 8 + ["B"] * 2, []) == ""


@pytest.mark.parametrize(
    ("rows", "headings"),
    [
        (["name,sex", "ANNA,F"], True),
        (["Given Name,F", "ANNA,F"], True),
        (["who,count", "ANNA,1", "BERTA,2", "CLARA,3"], True),
        (["ANNA,7", "BERTA,1", "CLARA,2", "DORA,3"], False),
        (["ANNA,NA", "BERTA,1", "CLARA,2", "DORA,3"], False),
        (["ANNA,null", "BERTA,1", "CLARA,2", "DORA,3"], False),
        (["ANNA,F,Unknown", "BERTA,F,1", "CLARA,F,2", "DORA,F,3"], False),
        (["who,count", "ANNA,1", "BERTA,2"], False),
        (["ANNA,F", "BERTA,F", "CLARA,M"], False),
    ],
)
def test_headings_are_common_words_or_above_numbers(rows: list[str], headings: bool) -> None:
    assert looks_like_headings([row.split(",") for row in rows]) == headings


def test_headings_read_as_a_name_are_noted(tmp_path: Path) -> None:
    path = put(tmp_path, "n.csv", "first,count\n" + lines("{0},{1}"))
    (remark,) = remarks(path, 1, header=False)
    assert "line 1 looks like headings, but 'first' is read as a name" in remark
    assert "names.header to true" in remark


def test_r_tables_are_refused_with_how_to_write_them(tmp_path: Path) -> None:
    advice = "write.csv(x, row.names = FALSE)"
    path = put(tmp_path, "n.csv", '"name" "sex"\n' + lines('"{1}" "{0}" "F"'))
    with refused(path, "separated by spaces, written by R's write.table", advice):
        remarks(path, "name")
    path = put(tmp_path, "n.csv", '"name","sex"\n' + lines('"{1}","{0}","F"'))
    with refused(
        path, "line 2: 3 cells, but line 1 has 2; if R left out the first heading", advice
    ):
        remarks(path, "name")
    path = put(tmp_path, "n.csv", '"name","sex"\n' + lines('"{1}","{0}",'))
    with refused(path, "one more cell than the headings, and the names are numbers", advice):
        remarks(path, "name")


@pytest.mark.parametrize("heading", ["title", '"title"', '"title" "album"', "title album"])
def test_titles_that_begin_with_quotes_are_not_taken_for_an_r_table(
    tmp_path: Path, heading: str
) -> None:
    text = f"{heading}\n" + lines('"{0}" (album)')
    for found in (
        remarks(put(tmp_path, "n.tsv", text), 1),
        remarks(put(tmp_path, "n.tsv", text), 1, header=False),
        remarks(put(tmp_path, "n.txt", text)),
    ):
        assert not any("R's" in it for it in found)
    text = "title\n" + lines('"{0}" "B"')
    assert not any("R's" in it for it in remarks(put(tmp_path, "n.txt", text)))
    assert not any("R's" in it for it in remarks(put(tmp_path, "n.tsv", text), "title"))


@pytest.mark.parametrize(
    "text",
    [
        '"name" "n"\n' + lines('"{0}" {1}'),
        '"name" "n"\n' + lines('"{1}" "{0}" NA'),
        '"name"\n' + lines('"{1}" "{0}"'),
    ],
)
def test_r_tables_are_recognized_by_quotes_and_number_of_cells(tmp_path: Path, text: str) -> None:
    (remark,) = remarks(put(tmp_path, "n.txt", text))
    assert "written by R's write.table" in remark


def test_a_column_of_numbers_is_noted(tmp_path: Path) -> None:
    path = put(tmp_path, "n.csv", "id,name\n" + lines("{1},{0}"))
    assert remarks(path, "name") == []
    assert remarks(path, "id") == [f"{path}: the names are numbers ('1'); check names.column"]
