"""`python -m charlm`: what it prints, and what it refuses."""

import gzip
import inspect
import io
import json
import math
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pytest

import charlm
from charlm import cli
from charlm.data import checkpoint
from charlm.data.corpus import Vocabulary, write_corpus
from charlm.trained import TrainedModel
from tests.conftest import ROOT, Project
from tests.helpers import DAMAGED, NAMES, POSIX, run_python, small_corpus, small_model

CORPUS = small_corpus()
KNOWN = CORPUS.vocabulary.characters


@dataclass(frozen=True)
class Told:
    """The result of a command: its exit code and output."""

    code: int
    out: str
    err: str


class Cli:
    """Runs commands in a folder with a checkpoint and its data set, laid out as in the pipeline."""

    checkpoint = "data/checkpoints/small.safetensors"

    def __init__(self, folder: Path, capture: pytest.CaptureFixture, patch: pytest.MonkeyPatch):
        self.folder, self.capture, self.patch = folder, capture, patch
        self.save(NAMES, "data/dataset.safetensors")
        checkpoint.save(folder / self.checkpoint, small_model(CORPUS), CORPUS.vocabulary)
        self.model = charlm.load(folder / self.checkpoint)
        patch.chdir(folder)

    def save(self, names: list[str], path: str) -> None:
        target = self.folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        vocabulary = Vocabulary("".join(sorted(set("".join(names)))))
        lines = BytesIO("".join(f"{name}\n" for name in names).encode())
        write_corpus(target, lines, vocabulary, 4, len("".join(names)) + 4 * (len(names) + 1))

    def __call__(self, *arguments: str, stdin: bytes | None = None, terminal: bool = False) -> Told:
        """Run a command here, with `CKPT` standing for the checkpoint."""
        given = io.TextIOWrapper(BytesIO(stdin or b""), encoding="ascii")
        self.patch.setattr(given, "isatty", lambda: terminal, raising=False)
        self.patch.setattr(sys, "stdin", given)
        code = cli.main([self.checkpoint if word == "CKPT" else word for word in arguments])
        return Told(code, *self.capture.readouterr())

    def refuse(self, *arguments: str, **options) -> str:
        """Return the line with which a command is refused."""
        told = self(*arguments, **options)
        assert (told.code, told.out) == (1, "")
        assert told.err.startswith("error: ")
        assert told.err.count("\n") == 1
        return told.err

    def json(self, *arguments: str, **options) -> dict:
        told = self(*arguments, "--json", **options)
        assert (told.code, told.err) == (0, "")
        return json.loads(told.out)


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Cli:
    return Cli(tmp_path, capsys, monkeypatch)


def test_names_are_printed_one_per_line(run: Cli) -> None:
    told = run("sample", "CKPT", "--prefix", "mar", "--count", "7", "--temperature", "0.8")
    assert told == Told(
        0, "\n".join(run.model.sample(prefix="MAR", count=7, temperature=0.8)) + "\n", ""
    )
    names = told.out.split()
    assert len(names) == 7
    assert all(name.startswith("MAR") for name in names)


def test_every_option_is_the_argument_of_the_same_name(run: Cli) -> None:
    options = {"prefix": "A", "count": 9, "temperature": 1.5, "seed": 3, "max_length": 5}
    options |= {"suffix": "E", "length": 4}
    words = [w for k, v in options.items() for w in (f"--{k.replace('_', '-')}", str(v))]
    assert run("sample", "CKPT", *words).out.splitlines() == run.model.sample(**options)
    signature = inspect.signature(TrainedModel.sample).parameters
    defaults = {name: signature[name].default for name in options}
    parsed = vars(cli._parse(["sample", "x"]))
    parsed["prefix"] = "".join(parsed["prefix"])
    assert {name: parsed[name] for name in options} == defaults
    for method in (TrainedModel.iterate, TrainedModel.most_probable):
        same = inspect.signature(method).parameters
        assert all(same[name].default == signature[name].default for name in same)


def test_names_may_begin_with_any_of_several_prefixes(run: Cli) -> None:
    words = ["--prefix", "mar", "--prefix", "Jo", "--length", "4-7", "--count", "50"]
    names = run("sample", "CKPT", *words).out.splitlines()
    assert names == run.model.sample(prefix=["MAR", "JO"], length=(4, 7), count=50)
    assert {name[0] for name in names} == {"M", "J"}


def test_names_unlike_a_list_are_also_novel(run: Cli) -> None:
    expected = run.model.sample(count=30, length=(1, 4), novel_to=NAMES, unlike=3)
    for words in (["--unlike", "3"], ["--unlike", "3", "--novel"]):
        told = run("sample", "CKPT", "--length", "1-4", "--count", "30", *words)
        assert told.out.splitlines() == expected
    (run.folder / "known.txt").write_text("ANNA\nBERTA\n")
    words = ["--unlike", "2", "--novel-to", "known.txt"]
    told = run("sample", "CKPT", *words)
    assert told.out.splitlines() == run.model.sample(novel_to=["ANNA", "BERTA"], unlike=2)
    (run.folder / "data/dataset.safetensors").unlink()
    assert "does not exist, but --unlike needs it" in run.refuse("sample", "CKPT", "--unlike", "2")


def test_many_names_are_printed_in_parts(run: Cli) -> None:
    run.patch.setattr(cli, "AT_ONCE", 7)
    names = run("sample", "CKPT", "--count", "50").out.splitlines()
    assert names == run.model.sample(count=50)


def test_the_most_probable_names_are_a_table_of_scores(run: Cli) -> None:
    options = ["--suffix", "a", "--length", "2-3", "--count", "9"]
    told = run("sample", "CKPT", "--most-probable", *options)
    scores = run.model.most_probable(9, suffix="A", length=(2, 3))
    assert [row[-1] for row in rows(told)] == [score.name for score in scores]
    assert told.out == run("score", "CKPT", *(score.name for score in scores)).out
    novel = [score.name for score in run.model.most_probable(9, novel_to=["A", "B"])]
    (run.folder / "known.txt").write_text("A\nB\n")
    words = ["--most-probable", "--novel-to", "known.txt", "--count", "9"]
    assert [row[-1] for row in rows(run("sample", "CKPT", *words))] == novel


def test_the_most_probable_names_as_json(run: Cli) -> None:
    words = ["--most-probable", "--prefix", "mar", "--prefix", "jo", "--length", "4-5"]
    document = run.json("sample", "CKPT", *words, "--count", "3", "--unlike", "2")
    scores = run.model.most_probable(
        3, prefix=["MAR", "JO"], length=(4, 5), novel_to=NAMES, unlike=2
    )
    listed = run.json("score", "CKPT", *(score.name for score in scores))["names"]
    for name in listed:
        del name["given"]
    assert document == {
        "checkpoint": run.checkpoint,
        "prefix": ["MAR", "JO"],
        "suffix": "",
        "length": [4, 5],
        "max_length": 30,
        "novel": True,
        "unlike": 2,
        "most_probable": True,
        "names": listed,
    }


def test_names_as_json(run: Cli) -> None:
    settings = {"prefix": "ZOE", "temperature": 1.0, "seed": 2, "max_length": 6}
    names = run.model.sample(count=3, **settings)
    words = ["--prefix", "Zoë", "--seed", "2", "--max-length", "6", "--count", "3"]
    document = run.json("sample", "CKPT", *words)
    settings |= {"suffix": "", "length": None, "novel": False, "unlike": None}
    settings |= {"most_probable": False}
    assert document == {"checkpoint": run.checkpoint, **settings, "names": names}
    assert run.json("sample", "CKPT", "--novel")["novel"] is True


def test_novel_names_are_new_to_the_data_set_above_the_checkpoint(run: Cli) -> None:
    known = [*NAMES, *run.model.sample(count=50, novel_to=[])[::2]]
    run.save(known, "data/dataset.safetensors")
    novel = run("sample", "CKPT", "--novel", "--count", "100").out.splitlines()
    assert novel == run.model.sample(count=100, novel_to=known)
    assert len(set(novel)) == 100
    assert not set(novel) & set(known)
    assert run.model.sample(count=100, novel_to=NAMES) != novel
    run.patch.chdir(run.folder / "data/checkpoints")
    assert run("sample", "small.safetensors", "--novel", "--count", "100").out.split() == novel


@pytest.mark.parametrize("kind", ["txt", "csv", "csv.gz"])
def test_novel_names_are_new_to_a_list(run: Cli, kind: str) -> None:
    (run.folder / "data/dataset.safetensors").unlink()
    known = run.model.sample(count=50, novel_to=[])[::2]
    table = kind.startswith("csv")
    lines = "\n".join((["n,first", *(f"1,{name}" for name in known)]) if table else known)
    path = run.folder / f"list.{kind}"
    path.write_bytes(gzip.compress(lines.encode()) if kind.endswith("gz") else lines.encode())
    column = ["--column", "first"] if table else []
    told = run("sample", "CKPT", "--novel-to", str(path), *column, "--count", "50")
    assert told.out.splitlines() == run.model.sample(count=50, novel_to=known)
    assert not set(told.out.split()) & set(known)


@pytest.mark.parametrize(
    ("head", "options"),
    [("n,a,b\n", ["--column", "2"]), ("", ["--no-header", "--column", "2"])],
    ids=["headings", "none"],
)
def test_the_column_of_a_list_may_be_a_number(run: Cli, head: str, options: list[str]) -> None:
    known = run.model.sample(count=50, novel_to=[])[::2]
    path = run.folder / "list.txt"
    path.write_text(head + "".join(f"1,{name},x\n" for name in known), encoding="utf-8")
    told = run("sample", "CKPT", "--novel-to", str(path), *options, "--count", "50")
    assert told.out.splitlines() == run.model.sample(count=50, novel_to=known)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["sample", "CKPT", "--prefix", "日"], ["--prefix: '日'", KNOWN]),
        (["sample", "CKPT", "--prefix", "ANNA", "--max-length", "3"], ["'ANNA'", "max_length (3)"]),
        (["sample", "CKPT", "--suffix", "日"], ["--suffix: '日'", KNOWN]),
        (["sample", "CKPT", "--prefix", "A", "--prefix", "日"], ["--prefix: '日'", KNOWN]),
        (["sample", "CKPT", "--length", "0"], ["length is 0; give"]),
        (["sample", "CKPT", "--length", "5-3"], ["length is 5-3; give"]),
        (
            ["sample", "CKPT", "--length", "five"],
            ["--length: 'five'", "a range such as 3-7", "--help"],
        ),
        (["sample", "CKPT", "--length=-5"], ["--length: '-5'", "a range such as 3-7", "--help"]),
        (["sample", "CKPT", "--length", "31"], ["length 31", "max_length (30)"]),
        (
            ["sample", "CKPT", "--length", "5", "--prefix", "mar", "--suffix", "ine"],
            ["no name of 5 characters begins with 'MAR' and ends with 'INE'"],
        ),
        (["sample", "CKPT", "--unlike", "0"], ["unlike is 0; give"]),
        (["sample", "CKPT", "--unlike", "x"], ["--unlike: invalid", "sample --help"]),
        (
            ["sample", "CKPT", "--most-probable", "--temperature", "2"],
            ["--temperature has no effect"],
        ),
        (["sample", "CKPT", "--most-probable", "--seed", "2"], ["--seed has no effect"]),
        (["sample", "CKPT", "--most-probable", "--count", "0"], ["count is 0; give"]),
        (
            ["sample", "CKPT", "--most-probable", "--max-length", "1", "--count", "99"],
            ["a search of all names gave only", "of 99 names; lower the count"],
        ),
        (["sample", "CKPT", "--count", "0"], ["count is 0; give"]),
        (["sample", "CKPT", "--count", "many"], ["--count: invalid", "sample --help"]),
        (["sample", "CKPT", "--temperature", "nan"], ["temperature is nan; give"]),
        (["sample", "CKPT", "--temp", "1"], ["--temp", "sample --help"]),
        (["sample", "CKPT", "another"], ["another", "sample --help"]),
        (["sample"], ["checkpoint", "sample --help"]),
        (["sample", "CKPT", "--column", "first"], ["--novel-to"]),
        (["sample", "CKPT", "--no-header"], ["--no-header applies to a table", "--novel-to"]),
        (["sample", "CKPT", "--novel-to", "https://example.com/n.txt"], ["URL", "import-url"]),
        (["sample", "CKPT", "--novel-to", "nowhere.txt"], ["nowhere.txt does not exist"]),
        (["sample", "CKPT", "--novel-to", "names.csv"], ["names.csv is a table", "first"]),
        (["score", "CKPT", "ANNA", "日"], ["argument 2: '日'", KNOWN, "add --skip-unknown"]),
        (["score", "CKPT", "ANNA", ""], ["argument 2: the name is empty", "add --skip-unknown"]),
        (["score", "CKPT", "ANNA", "\u200b "], ["argument 2: the name is empty"]),
        (["score"], ["required: checkpoint;", "score --help"]),
        (["sing"], ["'sing'", "sample", "score"]),
        ([], ["COMMAND", "python -m charlm --help"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_refused_in_one_line(run: Cli, words: list[str], parts: list[str]) -> None:
    (run.folder / "names.csv").write_text("first\nANNA\n")
    line = run.refuse(*words)
    for part in parts:
        assert part in line


@DAMAGED
@pytest.mark.parametrize("words", [["sample", "CKPT"], ["score", "CKPT", "ANNA"]])
def test_a_checkpoint_that_cannot_be_loaded_is_refused_in_one_line(
    run: Cli, damage: Callable[[bytes], bytes], words: list[str]
) -> None:
    path = run.folder / run.checkpoint
    path.write_bytes(damage(path.read_bytes()))
    advice = "give a checkpoint written by the pipeline, for example data/checkpoints/compact"
    assert run.checkpoint in (line := run.refuse(*words))
    assert advice in line
    path.unlink()
    assert f"{run.checkpoint} does not exist; {advice}" in run.refuse(*words)
    assert "data/dataset.safetensors is not a checkpoint" in run.refuse(
        words[0], "data/dataset.safetensors", *words[2:]
    )


def test_novel_without_a_data_set_says_what_to_do(run: Cli) -> None:
    dataset = run.folder / "data/dataset.safetensors"
    run.save(["ANNA", "BERTA"], "data/dataset.safetensors")
    line = run.refuse("sample", "CKPT", "--novel")
    assert "was not trained on the names in data/dataset.safetensors" in line
    assert "--novel-to FILE" in line
    dataset.write_bytes(b"what is this?")
    line = run.refuse("sample", "CKPT", "--novel")
    assert "data/dataset.safetensors is damaged" in line
    dataset.unlink()
    line = run.refuse("sample", "CKPT", "--novel")
    assert "data/dataset.safetensors does not exist, but --novel needs it" in line
    assert "pass the training names with --novel-to FILE" in line


def rows(told: Told) -> list[list[str]]:
    """Return the cells of a table of scores, without its header."""
    assert (told.code, told.err) == (0, "")
    header, *lines = told.out.splitlines()
    assert re.split(r" {2,}", header) == [
        "log-likelihood",
        "nats per character",
        "perplexity",
        "name",
    ]
    return [line.split() for line in lines]


def test_scores_are_a_table(run: Cli) -> None:
    scores = run.model.score("ANNA", "ZOÉ")
    expected = [
        [
            f"{score.log_likelihood:.3f}",
            f"{score.nats_per_character:.3f}",
            f"{score.perplexity:.2f}",
            score.name,
        ]
        for score in scores
    ]
    assert rows(run("score", "CKPT", "anna", "zoé")) == expected


def test_scores_as_json(run: Cli) -> None:
    document = run.json("score", "CKPT", "anna", "ZOÉ")
    assert document["checkpoint"] == run.checkpoint
    for given, shown, score in zip(
        ("anna", "ZOÉ"), document["names"], run.model.score("ANNA", "ZOÉ"), strict=True
    ):
        assert shown == {
            "given": given,
            "name": score.name,
            "log_likelihood": pytest.approx(score.log_likelihood, abs=1e-6),
            "nats_per_character": pytest.approx(score.nats_per_character, abs=1e-6),
            "bits_per_character": pytest.approx(score.bits_per_character, abs=1e-6),
            "perplexity": pytest.approx(score.perplexity, abs=1e-6),
        }


def test_scores_character_by_character(run: Cli) -> None:
    (shown,) = run.json("score", "CKPT", "--characters", "Zoé")["names"]
    (score,) = run.model.score("ZOÉ")
    parts = shown["characters"]
    assert [part["character"] for part in parts] == ["Z", "O", "É", None]
    likelihoods = [part["log_likelihood"] for part in parts]
    assert likelihoods == pytest.approx(score.log_likelihoods, abs=1e-6)
    assert sum(likelihoods) == pytest.approx(shown["log_likelihood"], abs=1e-5)
    for part in parts:
        assert part["probability"] == pytest.approx(math.exp(part["log_likelihood"]), abs=1e-5)
    told = run("score", "CKPT", "--characters", "Zoé", "Ida")
    title, *lines = told.out.splitlines()
    assert title.startswith(f"ZOÉ: log-likelihood {score.log_likelihood:.3f}, ")
    assert [line.split() for line in lines[:4]] == [
        [f"{math.exp(value):.3%}", f"{value:.3f}", character]
        for character, value in zip(["Z", "O", "É", "end"], score.log_likelihoods, strict=True)
    ]
    assert lines[4].startswith("IDA: ")
    assert len(lines) == 4 + 1 + 4


@pytest.mark.parametrize("dash", [[], ["-"]])
def test_names_are_read_from_standard_input_one_per_line(run: Cli, dash: list[str]) -> None:
    lines = "\ufeffanna\r\n\n  Zoé \nD’Arcy".encode()
    assert rows(run("score", "CKPT", *dash, stdin=lines)) == rows(
        run("score", "CKPT", "ANNA", "ZOÉ", "D'ARCY")
    )
    given = run.json("score", "CKPT", *dash, stdin=lines)["names"]
    assert [name["given"] for name in given] == ["anna", "Zoé", "D’Arcy"]


def test_lines_of_standard_input_may_end_with_carriage_returns(run: Cli) -> None:
    told = run("score", "CKPT", "--skip-unknown", stdin="anna\r日\rZoé\r".encode())
    assert told.out == run("score", "CKPT", "ANNA", "ZOÉ").out
    assert "skipped standard input, line 2: '日'" in told.err


def test_unreadable_names_are_skipped_and_named(run: Cli) -> None:
    lines = "anna\n\n日; X\nZoé\nЖ\n".encode()
    told = run("score", "CKPT", "--skip-unknown", stdin=lines)
    assert told.out == run("score", "CKPT", "ANNA", "ZOÉ").out
    assert told.err.splitlines() == [
        "skipped standard input, line 3: '日; X' contains ' ', ';', '日', which the model does not "
        "know",
        "skipped standard input, line 5: 'Ж' contains 'Ж', which the model does not know",
        "skipped 2 of 4 names",
    ]
    told = run("score", "CKPT", "--skip-unknown", "--json", "日", "anna")
    document = json.loads(told.out)
    assert document["names"] == run.json("score", "CKPT", "anna")["names"]
    reason = "'日' contains '日', which the model does not know"
    assert document["skipped"] == [{"given": "日", "location": "argument 1", "reason": reason}]
    assert run.json("score", "CKPT", "--skip-unknown", "anna")["skipped"] == []
    told = run("score", "CKPT", "--skip-unknown", "日")
    assert (told.code, told.out) == (0, "")
    assert told.err.endswith("skipped 1 of 1 names\n")
    told = run("score", "CKPT", "--skip-unknown", "", "anna", " \ufeff")
    assert told.out == run("score", "CKPT", "ANNA").out
    assert told.err.splitlines() == [
        "skipped argument 1: the name is empty",
        "skipped argument 3: the name is empty",
        "skipped 2 of 3 names",
    ]


def test_remarks_on_a_list_of_known_names_are_printed(run: Cli) -> None:
    (run.folder / "known.csv").write_text("name,sex\nANNA,F\nBERTA\n")
    told = run("sample", "CKPT", "--novel-to", "known.csv", "--column", "name", "--count", "2")
    assert "known.csv: line 3: fewer cells than in line 1" in told.err
    assert len(told.out.splitlines()) == 2


def test_invisible_characters_in_pasted_names_do_not_matter(run: Cli) -> None:
    pasted = "\u200banna\u200b\n\ufeff\nZ\u00adoé\u200e\n".encode()
    assert rows(run("score", "CKPT", stdin=pasted)) == rows(run("score", "CKPT", "ANNA", "ZOÉ"))
    assert run("sample", "CKPT", "--prefix", "\u200fmar\u200b").out.startswith("MAR")
    assert run.model.score("\u200b ANNA") == run.model.score("ANNA")


def test_many_lines_are_scored_in_order_with_one_header(run: Cli) -> None:
    run.patch.setattr(cli, "AT_ONCE", 10)
    found = rows(run("score", "CKPT", stdin="\n".join(NAMES).encode()))
    assert [row[-1] for row in found] == NAMES


@pytest.mark.parametrize(
    ("stdin", "part"),
    [
        (b"", "no names on standard input; give one per line, or pass arguments"),
        (b"\n \n", "no names on standard input"),
        ("ANNA\nZOÉ\n".encode("latin-1"), "standard input, line 2: not UTF-8 (byte 0xc9)"),
        ("ANNA\n\n日\n".encode(), "standard input, line 3: '日' contains"),
    ],
)
def test_unreadable_standard_input_is_reported(run: Cli, stdin: bytes, part: str) -> None:
    assert part in run.refuse("score", "CKPT", stdin=stdin)


def test_input_from_a_terminal_must_be_requested(run: Cli) -> None:
    line = run.refuse("score", "CKPT", stdin=b"ANNA\n", terminal=True)
    assert "no names; pass them as arguments, or one per line on standard input" in line
    assert rows(run("score", "CKPT", "-", stdin=b"ANNA\n", terminal=True))[0][-1] == "ANNA"
    run.patch.setattr(sys, "stdin", None)
    assert cli.main(["score", run.checkpoint]) == 1
    assert "no names" in run.capture.readouterr().err


def test_options_may_be_anywhere_and_names_may_look_like_them(run: Cli) -> None:
    assert run.json("score", "--characters", "CKPT", "ANNA") == run.json(
        "score", "CKPT", "ANNA", "--characters"
    )
    assert rows(run("score", "CKPT", "--", "-a"))[0][-1] == "-A"
    assert run("sample", "CKPT", "--prefix=-a", "--count", "1").out.startswith("-A")


def test_running_out_of_memory_is_reported_in_one_line(
    run: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhaust(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(TrainedModel, "iterate", exhaust)
    assert "not enough memory; lower --count" in run.refuse("sample", "CKPT")


HELP = """
import sys
from charlm import cli
try:
    cli.main(sys.argv[1:])
except SystemExit as error:
    assert error.code == 0
assert not {"torch", "numpy", "numba", "pandas"} & {*sys.modules}
"""


@pytest.mark.parametrize("command", [[], ["sample"], ["score"]], ids=str)
def test_help_has_examples_and_does_not_import_torch(command: list[str]) -> None:
    text = run_python(HELP, *command, "--help")
    assert text.startswith(f"usage: python -m charlm {' '.join(command)}".rstrip())
    assert "examples:" in text
    assert max(map(len, text.splitlines())) <= 100
    for option in {
        "sample": ["--novel-to", "--unlike D", "conditions:", "JSON:"],
        "score": ["JSON:"],
    }.get(*command or [""], ["sample", "score"]):
        assert option in text


@pytest.mark.parametrize("name", ["charlm", "charlm.exe"])
@pytest.mark.parametrize("command", [[], ["sample"], ["score"]], ids=str)
def test_help_calls_the_installed_command_by_its_name(name: str, command: list[str]) -> None:
    code = f"import sys; sys.argv[0] = '/usr/bin/{name}'; from charlm import cli; cli.run()"
    text = run_python(code, *command, "--help")
    assert text.startswith(f"usage: charlm {' '.join(command)}".rstrip())
    assert "python -m charlm" not in text


def test_a_missing_package_is_reported_in_one_line() -> None:
    command = (sys.executable, "-S", "-m", "charlm", "score", "data/model", "ANNA")
    ran = Project(ROOT).run(*command, code=1)
    assert re.fullmatch(r"error: this Python has no \w+; install it, or run: .*\n", ran.text)


def test_help_lists_the_keys_of_json(run: Cli) -> None:
    sample = run.json("sample", "CKPT")
    sample |= run.json("sample", "CKPT", "--most-probable", "--count", "1")
    options = ("--characters", "--skip-unknown")
    score = json.loads(run("score", "CKPT", *options, "ANNA", "日", "--json").out)
    for text, document in ((cli.SAMPLE_NOTES, sample), (cli.SCORE_NOTES, score)):
        (told,) = re.findall(r"^JSON:\n(.*?)\n\n", text, flags=re.MULTILINE | re.DOTALL)
        for key in re.findall(r'"(\w+)":', json.dumps(document)):
            assert re.search(rf"\b{key}\b", told), key


def examples(text: str) -> list[str]:
    """Return the commands that a help text shows, each on one line."""
    found = text.partition("examples:\n")[2].partition("\n\n")[0]
    joined = re.sub(r"\\\n|(?<=\|)\n", "", found)
    return [line.strip() for line in joined.splitlines()]


@POSIX
@pytest.mark.slow
def test_the_examples_in_the_help_work(
    template: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    shown = [cli.OVERVIEW_EXAMPLES, cli.SAMPLE_NOTES, cli.SCORE_NOTES]
    commands = [command for text in shown for command in examples(text)]
    assert len(commands) == 2 + 6 + 5
    small = [command.replace("data/prenoms.txt", "data/few.txt") for command in commands]
    plain = [command for command in small if not set(command) & set("|<")]
    monkeypatch.chdir(template.path)
    for command in plain:
        assert cli.main(shlex.split(command)[3:]) == 0, command
        assert capsys.readouterr().out
    for command in set(small) - set(plain):
        ran = template.run("bash", "-o", "pipefail", "-c", command)
        assert "error" not in ran.text, command


def start(run: Cli, *arguments: str, **options) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "charlm", *arguments],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        # A shell makes its background processes ignore Ctrl-C, and we would inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        **options,
    )


@POSIX
def test_closing_the_output_ends_the_command_quietly(run: Cli) -> None:
    path = str(run.folder / run.checkpoint)
    process = start(run, "sample", path, "--count", "20000", stdout=subprocess.PIPE)
    first = process.stdout.readline().decode().strip()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == -signal.SIGPIPE
    assert first == run.model.sample(count=20_000)[0]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux alone has a full device")
def test_a_full_device_is_reported_in_one_line(run: Cli) -> None:
    path = str(run.folder / run.checkpoint)
    with Path("/dev/full").open("wb") as full:
        process = start(run, "sample", path, stdout=full)
        told = process.stderr.read().decode()
    assert process.wait() == 1
    assert told == (
        "error: cannot write the output (No space left on device); redirect it elsewhere\n"
    )


@POSIX
def test_ctrl_c_is_reported_in_one_word(run: Cli) -> None:
    path = str(run.folder / run.checkpoint)
    process = start(run, "score", path, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdin.write(b"ANNA\n" * cli.AT_ONCE)
    process.stdin.flush()
    assert process.stdout.readline().startswith(b"log-likelihood")  # and then it waits for more
    process.send_signal(signal.SIGINT)
    _, told = process.communicate()
    assert told == b"interrupted\n"
    assert process.returncode == 130
