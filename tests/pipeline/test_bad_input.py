"""Hundreds of bad inputs: accepted, or refused in one line, with every output whole either way."""

import codecs
import copy
import gzip
import io
import json
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

import stages
from charlm.core.params import load_params
from charlm.data.corpus import load_corpus
from charlm.data.splits import load_split
from charlm.names.reading import CONTROL
from stages import build_dataset, split
from tests.conftest import IN_TURN, Project
from tests.helpers import ROOT, read_names, refused, taken_or_refused
from tests.unit.core.test_params import DEFAULTS, LEAVES, TEXT, in_one_line

many = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

OUTPUTS = ["data/dataset.safetensors", "data/split.safetensors", "metrics/dataset.json"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where all tests of this module run stages; the last outputs in it are whole."""
    folder = tmp_path_factory.mktemp("bad")
    shutil.copy(ROOT / "requirements.txt", folder)
    (folder / "names.txt").write_text("ANNA\nBERTA\nCLARA\nDORA\nEMMA\nFRIDA\n" * 3)
    return folder


def run_first_stages(folder: Path) -> str | None:
    """Run the two stages that read the input; return their one-line refusal, or None."""
    before = {path: _read(folder / path) for path in OUTPUTS}
    try:
        build_dataset.main()
        split.main()
    except BaseException as error:
        explained = stages.explain(error)
        if explained is None:  # a bug
            raise
        message, code = explained
        assert (code, len(message.splitlines())) == (1, 1), message
        event("refused")
        if not (message.startswith("error: params.yaml") and ": split: " in message):
            assert {path: _read(folder / path) for path in OUTPUTS} == before
        return message
    finally:
        assert list(folder.rglob(".partial-*")) == []
    corpus = load_corpus(folder / OUTPUTS[0])
    load_split(folder / OUTPUTS[1], corpus)
    facts = json.loads((folder / OUTPUTS[2]).read_text(encoding="utf-8"))
    assert facts["names"] == len(corpus.names()) >= 3
    event("taken")
    return None


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


# --- params.yaml ---------------------------------------------------------------------

SURPRISES = [
    *("1e-3", "1E3", "1e400", "-0", "+1", "08", "0o17", "0x10", "1_000", "1.", ".5", "1,5"),
    *("no", "yes", "on", "off", "y", "True", "null", "~", "", "Null", "NULL", ".inf", "-.INF"),
    *(".nan", "'8'", '"8"', "8 # eight", "8#", "!!str 8", "!!int '8'", "!!float 8", "2001-01-01"),
    *("12:30:45", "=", "<<", "? 8", "- 8", "[8]", "{8: 8}", "&a 8", "*a", "!x 8", "@8", "`8", "%8"),
    *(
        "|\n    8",
        ">\n    8",
        "'8",
        "[8",
        "\t8",
        "8\t",
        "8\r",
        "é",
        "名",
        "\u2028",
        "\x85",
        "\\x00",
    ),
    *("9" * 40, "9" * 5000, "{" * 200 + "}" * 200, "x" * 10_000, "${seed}", "${names.path}"),
]


def changed(parameter: str, value: str) -> str:
    """Return params.yaml on one line per section, with this value for one parameter."""
    values = copy.deepcopy(DEFAULTS)
    name, _, leaf = parameter.partition(".")
    if leaf:
        values[name][leaf] = "@"
    else:
        values[name] = "@"
    if parameter not in ("names", "names.path"):
        values["names"]["path"] = "names.txt"
    return in_one_line(values).replace('"@"', value)


WORDS = st.sampled_from(SURPRISES) | st.text(max_size=8) | st.integers().map(str)
KEYS = st.sampled_from([*DEFAULTS, *(leaf.rpartition(".")[2] for leaf in LEAVES), "", "1", "no"])
TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """Draw a params.yaml with one error, several errors, or none."""
    kind = draw(st.sampled_from(["value", "tree", "missing", "moved", "lines", "bytes", "code"]))
    values = copy.deepcopy(DEFAULTS)
    values["names"]["path"] = "names.txt"
    section = draw(st.sampled_from([name for name in DEFAULTS if isinstance(DEFAULTS[name], dict)]))
    match kind:
        case "value":
            text = changed(draw(st.sampled_from([*LEAVES, *DEFAULTS])), draw(WORDS))
        case "tree":
            values[draw(KEYS)] = draw(TREES)
            text = in_one_line(values)
        case "missing":
            for name in draw(st.lists(st.sampled_from(list(DEFAULTS)), max_size=3)):
                values.pop(name, None)
            text = in_one_line(values)
        case "moved":  # a key into its parent, into another section, or replacing a section
            key = draw(st.sampled_from(list(DEFAULTS[section])))
            target = draw(
                st.sampled_from([values, *(v for v in values.values() if v.__hash__ is None)])
            )
            moved = values[section].pop(key)
            target[draw(st.sampled_from([key, section]))] = moved
            text = in_one_line(values)
        case "lines":  # removed, repeated, or indented differently
            lines = TEXT.replace("data/prenoms.txt", "names.txt").splitlines(keepends=True)
            place = draw(st.integers(0, len(lines) - 1))
            lines[place] = draw(
                st.sampled_from(["", lines[place] * 2, " " + lines[place], lines[place].lstrip()])
            )
            text = "".join(lines)
        case "bytes":
            content = TEXT.replace("data/prenoms.txt", "names.txt").encode()
            place = draw(st.integers(0, len(content)))
            return content[:place] + draw(st.binary(max_size=4)) + content[place + 1 :]
        case _:
            code = draw(st.sampled_from(["utf-16", "utf-32", "utf-8-sig", "latin-1"]))
            return codecs.encode(TEXT.replace("data/prenoms.txt", "names.txt"), code)
    return text.encode("utf-8", errors="surrogatepass")


@many
@given(files())
@example(b"")
@example(b"---\n...\n")
@example(b"\x00")
@example(b"%YAML 1.1\n---\n" + TEXT.replace("data/prenoms.txt", "names.txt").encode())
@example(("a: &a [x,x,x,x]\n" * 1 + "b: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\n" + TEXT).encode())
def test_any_params_file_is_accepted_or_refused_and_outputs_are_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(folder)
    (folder / "params.yaml").write_bytes(content)
    refusal = run_first_stages(folder)
    assert refusal is None or refusal.startswith("error: ")


ONE_OF_EACH_KIND = [
    *("seed", "names.path", "names.column", "block_size", "lr", "device", "split.by"),
    *("split.train", "fcn.lr", "fcn.epochs", "fcn.hidden_dim", "sample.prefix"),
]


@pytest.mark.parametrize("parameter", ONE_OF_EACH_KIND)
def test_no_yaml_surprise_gets_past_the_check_of_any_parameter(
    tmp_path: Path, parameter: str
) -> None:
    taken = []
    for value in SURPRISES:
        path = tmp_path / "params.yaml"
        path.write_bytes(changed(parameter, value).encode())
        params = taken_or_refused(lambda path=path: load_params(path), path)
        if params is not None:
            taken.append(value)
    if parameter not in {"names.path", "names.column", "sample.prefix"}:
        assert not {"no", "yes", "'8'", "true", ".nan", ".inf", "[8]", "2001-01-01"} & set(taken)


def test_deeply_nested_references_are_shortened_in_the_error(tmp_path: Path) -> None:
    """Nine levels of nine references would fill the memory if they were written out."""
    levels = ["&a0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"&a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 10)]
    text = changed("lr", "@@").replace(
        "@@", "{" + ", ".join(f"k{i}: {v}" for i, v in enumerate(levels)) + "}"
    )
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with refused(path, "lr is {"):
        load_params(path)


@pytest.mark.parametrize(
    ("value", "number"), [("1e-3", 0.001), ("08", 8.0), ("1_0", None), ("0o10", 8.0), ("+.5", 0.5)]
)
def test_numbers_are_read_as_dvc_reads_them(
    tmp_path: Path, value: str, number: float | None
) -> None:
    from dvc.utils.serialize import load_yaml

    path = tmp_path / "params.yaml"
    path.write_text(changed("lr", value))
    params = taken_or_refused(lambda: load_params(path), path)
    theirs = load_yaml(str(path))["lr"]
    if number is None:
        assert params is None or params.lr == theirs
    else:
        assert params is not None
        assert params.lr == theirs == number


# --- lists of names ------------------------------------------------------------------

CHARACTERS = st.characters(codec="utf-8") | st.sampled_from(
    "\x00\x07\x1b\x7f\x85\u2028\ufeff\t\r\n ,\"';"
)
CELLS = st.sampled_from(['"', '""', ",", "\n", "\r\n", "\t", "name", "ANNE", "É", " ", "'", "\x00"])


@st.composite
def lists(draw: st.DrawFn) -> tuple[str, bytes]:
    """Draw the name and content of a file that may be a list of names."""
    kind = draw(st.sampled_from(["text", "lines", "raw", "table", "gzip", "zip"]))
    match kind:
        case "text":
            return "n.txt", draw(st.text(CHARACTERS, max_size=200)).encode()
        case "lines":
            names = st.text(st.characters(categories=["L", "M"]), min_size=1, max_size=12)
            lines = draw(st.lists(names, min_size=9, max_size=30))
            lines.insert(len(lines) // 2, draw(st.text(CHARACTERS, max_size=2)))
            return "n.txt", "\n".join(lines).encode()
        case "raw":
            raw = draw(st.binary(max_size=60))
            code = draw(st.sampled_from(["utf-8", "latin-1", "utf-16", "utf-8-sig"]))
            return "n.txt", raw + "ANNE\nZOÉ\nJEAN\n".encode(code) + draw(st.binary(max_size=8))
        case "table":
            cells = "".join(draw(st.lists(CELLS, max_size=40)))
            return draw(st.sampled_from(["n.csv", "n.tsv"])), ("name,x\n" + cells).encode()
    inner = draw(st.binary(max_size=40)) + b"ANNE\nMARIE\nJEAN\n"
    if kind == "gzip":
        packed = gzip.compress(inner, mtime=0)
    else:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for number in range(draw(st.integers(0, 3))):
                archive.writestr(f"{number}.txt", inner)
        packed = buffer.getvalue()
    place = draw(st.integers(0, len(packed)))
    damaged = packed[:place] + draw(st.binary(max_size=2)) + packed[place:]
    return f"n.txt.{'gz' if kind == 'gzip' else 'zip'}", damaged


@many
@given(lists())
@example(("n.csv", b'name,x\n"ANNE,1\nMARIE,2\nJEAN,3\n'))
@example(("n.csv", b'"name\n'))
@example(("n.csv", b"name,name\nA,B\nC,D\nE,F\n"))
@example(("n.txt", b"\xed\xa0\x80ANNE\nMARIE\nJEAN\n"))
@example(("n.txt", "\ud800".encode("utf-16-le", "surrogatepass") * 9))
@example(("n.txt", b"\n \n\t\n\xc2\xa0\n\xe3\x80\x80\n"))
@example(("n.txt", b"A\rB\rC\rD\r"))
@example(("n.zip", b"PK\x05\x06" + bytes(18)))
def test_any_list_is_accepted_or_refused_and_outputs_are_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch, file: tuple[str, bytes]
) -> None:
    name, content = file
    monkeypatch.chdir(folder)
    (folder / name).write_bytes(content)
    column = "name" if name.endswith("sv") else "null"
    text = changed("names.path", json.dumps(name)).replace('"column": null', f'"column": {column}')
    (folder / "params.yaml").write_text(text.replace('"train": 0.8', '"train": 0.5'))
    refusal = run_first_stages(folder)
    if refusal is None:
        corpus = load_corpus(folder / OUTPUTS[0])
        assert not any(CONTROL.search(name) for name in corpus.names())
    else:
        assert name in refusal or ": split: " in refusal


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


SPECIAL: dict[str, tuple[Callable[[Path], object], str]] = {
    "directory": (Path.mkdir, "cannot be read"),
    "named pipe": (make_pipe, "not a regular file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    "dangling link": (lambda path: path.symlink_to("nowhere"), "does not exist"),
    "link to itself": (lambda path: path.symlink_to(path), "cannot be read"),
}


@pytest.mark.parametrize(("make", "expected"), SPECIAL.values(), ids=SPECIAL.keys())
@pytest.mark.parametrize("name", ["n.txt", "n.csv", "n.txt.gz", "n.zip"])
def test_anything_but_a_regular_file_is_refused_at_once(
    tmp_path: Path, name: str, make: Callable[[Path], object], expected: str
) -> None:
    make(tmp_path / name)
    with refused(tmp_path / name, expected):
        read_names(tmp_path / name, "name" if name == "n.csv" else None)


def test_a_million_identical_lines_are_one_name(tmp_path: Path) -> None:
    (tmp_path / "n.txt").write_bytes(b"ANNE\n" * 1_000_000)
    with refused(tmp_path / "n.txt", "contains only one name"):
        read_names(tmp_path / "n.txt")
    with (tmp_path / "n.txt").open("ab") as file:
        file.write(b"MARIE\nJEAN\n")
    listed = read_names(tmp_path / "n.txt")
    assert (listed.names, listed.duplicates) == (["ANNE", "MARIE", "JEAN"], 999_999)


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ("AN\x00NE", "U+0000"),
        ("A\x1b[31mB", "U+001B"),
        ("A\u2028B", "U+2028"),
        ("A\x85B", "U+0085"),
    ],
)
def test_a_control_character_in_a_name_is_refused_and_escaped(
    tmp_path: Path, content: str, shown: str
) -> None:
    (tmp_path / "n.txt").write_text(f"ANNE\nMARIE\nJEAN\n{content}\n", encoding="utf-8")
    with refused(f"{tmp_path / 'n.txt'}, line 4: ", "control character", shown):
        read_names(tmp_path / "n.txt")


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_the_line_endings_of_every_system_are_accepted(tmp_path: Path, line_end: str) -> None:
    names = ["ANNE", "MARIE", "JEAN"]
    (tmp_path / "n.txt").write_bytes(line_end.join(names).encode())
    assert read_names(tmp_path / "n.txt").names == names


ODD_LISTS = {
    "10,002 different characters": [
        "".join(chr(0x4E00 + 3 * i + k) for k in range(3)) for i in range(3334)
    ],
    "names longer than sample.max_length": [letter * 400 for letter in "ABCDEFGH"],
    "signs that tables and formats use": [
        *(
            '"A"',
            "'B'",
            "A,B",
            "A\tB",
            "=1+1",
            "{C}",
            "%s",
            "\\n",
            "$x$",
            "_^_",
            "<b>",
            "#",
            ".",
            "-",
        ),
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("names", ODD_LISTS.values(), ids=ODD_LISTS)
def test_an_odd_list_goes_through_all_stages(project: Project, names: list[str]) -> None:
    (project.path / "odd.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    project.set(names__path="odd.txt", epochs="1", batch_size="1024", split__train="0.5")
    project.set(fcn__hidden_dim="8", wavenet__hidden_dim="8", split__val="0.25")
    for stage in IN_TURN:
        ran = project.stage(stage)
        assert "Traceback" not in ran.text
        assert not re.search("warning", ran.text, re.IGNORECASE), ran.text
    listed = json.loads((project.path / "metrics/dataset.json").read_text(encoding="utf-8"))
    assert listed["names"] == len(names)
    assert YAML(typ="safe").load(project.path / "params.yaml")["names"]["path"] == "odd.txt"
