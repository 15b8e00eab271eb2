"""The command line: names drawn from a checkpoint, and the likelihood of names.

torch is imported once there is something to compute, and not to print a help or to refuse an
option.
"""

import argparse
import json
import math
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from io import TextIOWrapper
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from charlm.core.errors import FileError, InputError, is_interrupt, is_out_of_memory, no_module
from charlm.core.pinning import pin_kernels

if TYPE_CHECKING:
    from charlm.trained import Score, TrainedModel

DATASET = "dataset.safetensors"
"""What the names that a checkpoint was trained on are called, in the folder above its own."""
AT_ONCE = 1 << 16
"""Lines of the standard input to score together."""
HEADER = "log-likelihood  nats per character  perplexity  name\n"
DECIMALS = 6
"""Of what is written as JSON; beyond them machines differ."""

OVERVIEW = """\
Invent names with a trained model, and tell how likely names are.

A model is a checkpoint that the pipeline wrote; it needs nothing beside it.
"""

OVERVIEW_EXAMPLES = """\
examples:
  python -m charlm sample data/checkpoints/compact.safetensors --count 5
  python -m charlm score data/checkpoints/compact.safetensors MARTINE

"python -m charlm sample --help" and "python -m charlm score --help" say more.
From Python: charlm.load("data/checkpoints/compact.safetensors").sample(count=5)
"""

SAMPLE = """\
Invent names and print them, one a line.

The model draws a name character by character, each with the probability that
it gives it after those before, until it draws the end. The same command
prints the same names; another --seed gives others.
"""

SAMPLE_NOTES = """\
temperature:
  The logits are divided by it. At 1 names come as often as the model finds
  likely. Towards 0 they become the likeliest ones, over and over; above 1
  they become adventurous, then noise.

novel names:
  Without --novel, names are as drawn: some are names that exist, and likely
  ones may come more than once. With it, exactly as many names as asked for
  are printed, all different, and none of them is in the list that the model
  was trained on: dataset.safetensors, in the folder above the checkpoint's.
  Where that is not there, --novel-to names a list: text with a name a line,
  or .csv or .tsv with a --column, also .gz and .zip.

reading a prefix:
  Case, accents and the like are taken as the model's characters have them,
  where that leaves no doubt: "mar" means MAR to a model of upper-case names,
  "zoë" ZOË, or ZOE if it knows no Ë. Else an error lists what it knows.

JSON:
  An object with checkpoint, prefix (as read), temperature, seed, max_length,
  novel (true or false) and names (a list of texts).

examples:
  python -m charlm sample data/checkpoints/compact.safetensors --prefix MAR
  python -m charlm sample data/checkpoints/compact.safetensors \\
      --prefix MAR --count 20 --temperature 0.8 --novel
  python -m charlm sample data/checkpoints/compact.safetensors \\
      --novel-to data/prenoms.txt --json
"""

SCORE = """\
Tell how likely the model finds names, given as arguments or one a line on the
standard input (which "-" stands for).
"""

SCORE_NOTES = """\
what is printed:
  log-likelihood      the logarithm of the probability that a name drawn at
                      temperature 1 is this one: the sum over its characters
                      and its end, in nats. Higher is likelier; a longer name
                      is less likely by its length alone.
  nats per character  the same by character, the end counted as one, as a
                      loss, so that names of any length compare. The losses
                      of the pipeline are means of it.
  perplexity          its exponential: as if there had been so many equally
                      likely characters to choose from, each time.
  name                as the model reads it: case, accents and the like are
                      taken as its characters have them, where that leaves
                      no doubt.

  With --characters, each name is followed by the probability and the
  log-likelihood of each of its characters, given those before it, and of
  its end.

JSON:
  An object with checkpoint and names, a list of objects with given, name (as
  read), log_likelihood, nats_per_character, bits_per_character, perplexity,
  and with --characters also characters: a list of objects with character
  (null for the end), probability and log_likelihood.

examples:
  python -m charlm score data/checkpoints/compact.safetensors MARTINE zoé
  python -m charlm score data/checkpoints/compact.safetensors --characters MARTINE
  python -m charlm score data/checkpoints/compact.safetensors < data/prenoms.txt | sort -n
  python -m charlm sample data/checkpoints/compact.safetensors --novel |
      python -m charlm score data/checkpoints/compact.safetensors --json
"""


def run() -> NoReturn:
    """Run the program: `charlm`, or `python -m charlm`.

    The kernels are pinned: the same command prints the same names on every machine.
    """
    pin_kernels()
    if hasattr(signal, "SIGPIPE"):  # end quietly if the reader of the output stops, like `head`
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code: 0, 1 after a line that says what is wrong, 130 for Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # names may hold what a terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        parsed = _parse(sys.argv[1:] if arguments is None else arguments)
        for text in parsed.run(parsed):
            _print(text)
    except BaseException as error:
        explained = _explain(error)
        if explained is None:
            raise
        message, code = explained
        print(message, file=sys.stderr, flush=True)
        return code
    return 0


def _explain(error: BaseException) -> tuple[str, int] | None:
    """The line that says what is wrong and what to do, and the exit code; None for a bug."""
    if is_interrupt(error):
        return "interrupted", 130
    if isinstance(error, InputError):
        return f"error: {error}", 1
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("charlm"):
        return f"error: {no_module(str(error.name))}", 1
    if is_out_of_memory(error):
        return "error: not enough memory; lower --count or --max-length, or give fewer names", 1
    return None


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except OSError as error:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)  # or Python fails once more, over what is left to write
        raise InputError(
            f"the output cannot be written ({error.strerror}); write it elsewhere"
        ) from None


class _Parser(argparse.ArgumentParser):
    """Refuses in one line, as all of this project does."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options
        )

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see: {self.prog} --help")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser, commands = _parsers()
    if arguments and arguments[0] in commands:  # alone, it takes names after options too
        return commands[arguments[0]].parse_intermixed_args(arguments[1:])
    return parser.parse_args(arguments)


def _parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """That of the whole, and those of the commands."""
    program = "charlm" if Path(sys.argv[0]).stem == "charlm" else "python -m charlm"

    def named(text: str) -> str:
        return text.replace("python -m charlm", program)

    parser = _Parser(prog=program, description=OVERVIEW, epilog=named(OVERVIEW_EXAMPLES))
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    sampling = commands.add_parser(
        "sample", help="invent names", description=SAMPLE, epilog=named(SAMPLE_NOTES)
    )
    sampling.add_argument(
        "checkpoint", type=Path, help="such as data/checkpoints/compact.safetensors"
    )
    sampling.add_argument(
        "--prefix", default="", metavar="TEXT", help="what every name starts with"
    )
    sampling.add_argument(
        "--count", type=int, default=20, metavar="N", help="how many names (default: %(default)s)"
    )
    sampling.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        metavar="T",
        help="below 1 plays safe, above 1 takes risks (default: %(default)s)",
    )
    sampling.add_argument(
        "--seed", type=int, default=1, metavar="N", help="chooses the names (default: %(default)s)"
    )
    sampling.add_argument(
        "--max-length",
        type=int,
        default=30,
        metavar="N",
        help="characters after which a name is cut (default: %(default)s)",
    )
    sampling.add_argument(
        "--novel",
        action="store_true",
        help="different names only, none of which the model was trained on",
    )
    sampling.add_argument(
        "--novel-to",
        type=Path,
        metavar="FILE",
        help="the same with the names of this list in place of those",
    )
    sampling.add_argument("--column", metavar="NAME", help="of a table: which one holds the names")
    sampling.add_argument("--json", action="store_true", help="print a JSON document")
    sampling.set_defaults(run=_sample)

    scoring = commands.add_parser(
        "score", help="tell how likely names are", description=SCORE, epilog=named(SCORE_NOTES)
    )
    scoring.add_argument(
        "checkpoint", type=Path, help="such as data/checkpoints/compact.safetensors"
    )
    scoring.add_argument(
        "names", nargs="*", default=[], metavar="NAME", help="names, or - for standard input"
    )
    scoring.add_argument(
        "--characters", action="store_true", help="show every character and the end as well"
    )
    scoring.add_argument("--json", action="store_true", help="print a JSON document")
    scoring.set_defaults(run=_score)
    return parser, {"sample": sampling, "score": scoring}


def _load(path: Path) -> "TrainedModel":
    from charlm import load

    try:
        return load(path)
    except FileError as error:
        raise InputError(
            f"{error}; give a checkpoint that the pipeline wrote, "
            "such as data/checkpoints/compact.safetensors"
        ) from None


def _sample(arguments: argparse.Namespace) -> Iterator[str]:
    if arguments.column is not None and arguments.novel_to is None:
        raise InputError("--column is that of a table of names; name the table with --novel-to")
    model = _load(arguments.checkpoint)
    settings = {
        "prefix": _read(model, arguments.prefix, "--prefix"),
        "temperature": arguments.temperature,
        "seed": arguments.seed,
        "max_length": arguments.max_length,
    }
    known = _known_names(arguments, model)
    names = model.sample(count=arguments.count, novel_to=known, **settings)
    if arguments.json:
        novel = known is not None
        yield _as_json(arguments.checkpoint, **settings, novel=novel, names=names)
    else:
        yield "\n".join(names)


def _known_names(arguments: argparse.Namespace, model: "TrainedModel") -> Iterable[str] | None:
    """The names that are not wanted; None where all are."""
    from charlm.data.corpus import load_corpus
    from charlm.names.reading import name_blocks

    if arguments.novel_to is not None:
        return chain.from_iterable(name_blocks(arguments.novel_to, arguments.column))
    if not arguments.novel:
        return None
    path = Path(os.path.normpath(arguments.checkpoint.parent / os.pardir / DATASET))
    instead = "name a list of the known names with --novel-to FILE"
    try:
        corpus = load_corpus(path)
    except FileError as error:
        raise InputError(f"{error}, and --novel would read it; {instead}") from None
    if corpus.vocabulary != model.vocabulary:
        raise InputError(
            f"{path} is of other names than those that {arguments.checkpoint} was trained on; "
            f"{instead}"
        )
    return chain.from_iterable(corpus.name_chunks())


def _score(arguments: argparse.Namespace) -> Iterator[str]:
    given = _given(arguments.names)
    if (first := next(given, None)) is None:
        raise InputError("standard input holds no names; give one a line, or as arguments")
    given = chain([first], given)
    model = _load(arguments.checkpoint)
    header = "" if arguments.characters else HEADER
    objects: list[dict[str, Any]] = []
    while some := list(islice(given, AT_ONCE)):
        scores = model.score(*(_read(model, name, place) for place, name in some))
        if arguments.json:
            objects += (
                _as_object(name, score, arguments.characters)
                for (_, name), score in zip(some, scores, strict=True)
            )
        else:
            as_text = _character_by_character if arguments.characters else _as_row
            yield header + "\n".join(map(as_text, scores))
            header = ""
    if arguments.json:
        yield _as_json(arguments.checkpoint, names=objects)


def _given(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Where each name to score is, and the name."""
    if names and names != ["-"]:
        return ((f"argument {n}", name.strip()) for n, name in enumerate(names, start=1))
    if sys.stdin is None or (not names and sys.stdin.isatty()):
        raise InputError("no names; give them as arguments, or one a line on standard input")
    return _lines()


def _lines() -> Iterator[tuple[str, str]]:
    """Where each line of the standard input is that is not empty, and the line."""
    number = 0
    try:
        for number, line in enumerate(sys.stdin.buffer, start=1):
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            if text:
                yield f"standard input, line {number}", text
    except UnicodeDecodeError as error:
        raise InputError(
            f"standard input, line {number}: not UTF-8 (byte 0x{error.object[error.start]:02x}); "
            "convert it first, for instance: iconv -f LATIN1 -t UTF-8"
        ) from None
    except OSError as error:
        raise InputError(
            f"standard input cannot be read ({error.strerror}); give names as arguments"
        ) from None


def _read(model: "TrainedModel", text: str, place: str) -> str:
    """`text` as the model reads it; where it cannot, the error says in which `place` it was."""
    try:
        return model.fold(text)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None


def _as_row(score: "Score") -> str:
    return (
        f"{score.log_likelihood:14.3f}  {score.nats_per_character:18.3f}  "
        f"{score.perplexity:10.2f}  {score.name}"
    )


def _character_by_character(score: "Score") -> str:
    lines = [
        f"{score.name}: log-likelihood {score.log_likelihood:.3f}, "
        f"{score.nats_per_character:.3f} nats per character, perplexity {score.perplexity:.2f}"
    ]
    for character, probability, log_likelihood in _parts(score):
        shown = "end" if character is None else character
        shown = shown if shown.isprintable() and shown != " " else repr(shown)
        lines.append(f"{probability:9.3%}  {log_likelihood:8.3f}  {shown}")
    return "\n".join(lines)


def _as_object(given: str, score: "Score", characters: bool) -> dict[str, Any]:
    values = {
        "given": given,
        "name": score.name,
        "log_likelihood": round(score.log_likelihood, DECIMALS),
        "nats_per_character": round(score.nats_per_character, DECIMALS),
        "bits_per_character": round(score.bits_per_character, DECIMALS),
        "perplexity": round(score.perplexity, DECIMALS),
    }
    if not characters:
        return values
    parts = [
        {
            "character": character,
            "probability": round(probability, DECIMALS),
            "log_likelihood": round(log_likelihood, DECIMALS),
        }
        for character, probability, log_likelihood in _parts(score)
    ]
    return {**values, "characters": parts}


def _parts(score: "Score") -> Iterator[tuple[str | None, float, float]]:
    """Each character, None for the end, its probability, and the logarithm of that."""
    for character, value in zip([*score.name, None], score.log_likelihoods, strict=True):
        yield character, math.exp(value), value


def _as_json(checkpoint: Path, **values: Any) -> str:
    return json.dumps({"checkpoint": str(checkpoint), **values}, indent=2, ensure_ascii=False)
