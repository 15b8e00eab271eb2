"""The command line: sample names from a checkpoint, and score names.

torch is imported only when it is needed, not for --help or an invalid option.
"""

import argparse
import json
import math
import os
import re
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from charlm.core.errors import FileError, InputError, is_out_of_memory, no_module
from charlm.core.interrupts import obey_interrupts
from charlm.core.pinning import pin_kernels
from charlm.core.terminal import escape_unprintable
from charlm.names.invisible import clean

if TYPE_CHECKING:
    from charlm.trained import Score, TrainedModel

DATASET = "dataset.safetensors"
"""The file with the training names, in the folder above the checkpoint's."""
AT_ONCE = 1 << 16
"""Lines of standard input to score, or names to print, at once."""
HEADER = "log-likelihood  nats per character  perplexity  name\n"
DECIMALS = 6
"""Decimal places in JSON output; later digits differ between machines."""

OVERVIEW = """\
Sample names from a trained model, or score given names.

The model is read from a checkpoint that the pipeline has written.
"""

OVERVIEW_EXAMPLES = """\
examples:
  python -m charlm sample data/checkpoints/compact.safetensors --count 5
  python -m charlm score data/checkpoints/compact.safetensors MARTINE

For the options of a command, run: python -m charlm sample --help

From Python: charlm.load("data/checkpoints/compact.safetensors").sample(count=5)
"""

SAMPLE = """\
Sample names and print them, one per line.

Names are sampled character by character. The same command always prints the
same names; change --seed to get others. With --most-probable, nothing is
sampled: the most probable names are printed with their likelihoods.
"""

SAMPLE_NOTES = """\
temperature:
  Divides the logits. At 1, names follow the model's own distribution. Toward 0,
  the most likely names keep repeating. Above 1, names become more unusual and
  eventually random.

conditions:
  You can combine --prefix, --suffix and --length. The sampled names then follow
  the model's exact distribution over the names that meet all conditions. If
  such names are too rare, sampling stops with an error.

  You can repeat --prefix to allow several prefixes. The model determines how
  frequent each one is: with --prefix MAR --prefix JO, the ratio of MAR names to
  JO names is the same as without a prefix.

  --length counts all characters, including the prefix and the suffix. Names are
  cut at --max-length characters. With --suffix or --length, longer names are
  rejected instead.

novel names:
  By default, a sampled name can be in the training data, and names can repeat.
  With --novel, all names are distinct, and none is in the list that the model
  was trained on. The list is read from dataset.safetensors, in the folder above
  the checkpoint's. If you do not have that file, pass the list with --novel-to:
  a text file with one name per line, or a table (see --column). It can be
  compressed (.gz, .bz2, .xz, .zip).

  --unlike D keeps only names that are at least D edits away from every name in
  the list. An edit inserts, deletes or replaces one character.

most probable names:
  --most-probable prints the --count most probable names, the most probable
  first, with the same columns as "score". The result is exact, and the
  temperature is always 1. You can add the conditions above, --novel and
  --unlike. Names are never cut. If the search would take too long, it stops
  with an error.

reading a prefix or suffix:
  Case, accents and similar variants are converted to the model's characters if
  only one conversion is possible. For a model of upper-case names, "mar"
  becomes MAR, and "zoë" becomes ZOË, or ZOE if the model has no Ë. Otherwise an
  error lists the model's characters.

JSON:
  An object with the keys checkpoint, prefix (as read; a list if there are
  several), suffix (as read), length (a number, a list [shortest, longest] or
  null), temperature, seed, max_length, novel (true or false), unlike (a number
  or null), most_probable (true or false) and names (a list of strings).
  With --most-probable, temperature and seed are missing, and names is a list
  of objects as in "score": name, log_likelihood, nats_per_character,
  bits_per_character and perplexity.

examples:
  python -m charlm sample data/checkpoints/compact.safetensors --prefix MAR
  python -m charlm sample data/checkpoints/compact.safetensors \\
      --prefix MAR --count 20 --temperature 0.8 --novel
  python -m charlm sample data/checkpoints/compact.safetensors \\
      --prefix MAR --prefix JO --suffix NE --length 6-9
  python -m charlm sample data/checkpoints/compact.safetensors --unlike 2
  python -m charlm sample data/checkpoints/compact.safetensors \\
      --most-probable --novel --length 5
  python -m charlm sample data/checkpoints/compact.safetensors \\
      --novel-to data/prenoms.txt --json
"""

SCORE = """\
Print the likelihood of names under a model.

Give the names as arguments, or one per line on standard input ("-").
"""

SCORE_NOTES = """\
output:
  log-likelihood      log-probability of sampling exactly this name at
                      temperature 1, in nats: the sum over its characters and
                      its end. Higher means more likely.
  nats per character  negative log-likelihood divided by the number of
                      characters, counting the end as one. Use it to compare
                      names of different lengths. Same unit as the losses of
                      the pipeline.
  perplexity          exp(nats per character): the number of equally likely
                      characters with the same uncertainty.
  name                the name as the model reads it. Case, accents and similar
                      variants are converted to the model's characters if only
                      one conversion is possible.

  With --characters, each name is followed by the probability and log-likelihood
  of each of its characters, given the characters before it, and of its end.

unknown characters:
  A name that is empty or cannot be converted is an error. With --skip-unknown,
  such names are skipped, and listed and counted on standard error. Empty lines
  of standard input are ignored.

JSON:
  An object with the keys checkpoint and names. names is a list of objects with
  given, name (as read), log_likelihood, nats_per_character, bits_per_character
  and perplexity. With --characters, each object also has characters, a list of
  objects with character (null for the end), probability and log_likelihood.
  With --skip-unknown, there is also the key skipped, a list of objects with
  given, location and reason.

examples:
  python -m charlm score data/checkpoints/compact.safetensors MARTINE zoé
  python -m charlm score data/checkpoints/compact.safetensors --characters MARTINE
  python -m charlm score data/checkpoints/compact.safetensors < data/prenoms.txt | sort -n
  python -m charlm score data/checkpoints/compact.safetensors --skip-unknown < data/prenoms.txt
  python -m charlm sample data/checkpoints/compact.safetensors --novel |
      python -m charlm score data/checkpoints/compact.safetensors --json
"""


def run() -> NoReturn:
    """Run the program: `charlm`, or `python -m charlm`.

    Kernels are pinned, so the same command prints the same names on every machine.
    """
    try:
        pin_kernels()
    except InputError as error:
        sys.exit(f"error: {error}")
    obey_interrupts()
    if hasattr(signal, "SIGPIPE"):  # exit quietly when piped into `head`
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 1 after an error message, 130 after Ctrl-C."""
    escape_unprintable()
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
    """Return the error message and the exit code; None for a bug."""
    if isinstance(error, KeyboardInterrupt):
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
            os.dup2(nowhere.fileno(), 1)  # otherwise Python fails again when it flushes at exit
        raise InputError(
            f"cannot write the output ({error.strerror}); redirect it elsewhere"
        ) from None


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are a single line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **options
        )

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see: {self.prog} --help")


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser, commands = _parsers()
    if arguments and arguments[0] in commands:  # allows names after options
        return commands[arguments[0]].parse_intermixed_args(arguments[1:])
    return parser.parse_args(arguments)


def _parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """Return the main parser and the parsers of the commands."""
    program = "charlm" if Path(sys.argv[0]).stem == "charlm" else "python -m charlm"

    def named(text: str) -> str:
        return text.replace("python -m charlm", program)

    parser = _Parser(prog=program, description=OVERVIEW, epilog=named(OVERVIEW_EXAMPLES))
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    sampling = commands.add_parser(
        "sample", help="sample names", description=SAMPLE, epilog=named(SAMPLE_NOTES)
    )
    sampling.add_argument(
        "checkpoint", type=Path, help="the model, for example data/checkpoints/compact.safetensors"
    )
    sampling.add_argument(
        "--prefix",
        action="append",
        default=[],
        metavar="TEXT",
        help="text that every name begins with; repeat the option to allow several prefixes",
    )
    sampling.add_argument(
        "--suffix", default="", metavar="TEXT", help="text that every name ends with"
    )
    sampling.add_argument(
        "--length",
        type=_length,
        metavar="N",
        help="number of characters of every name, or a range such as 3-7",
    )
    sampling.add_argument(
        "--count", type=int, default=20, metavar="N", help="number of names (default: %(default)s)"
    )
    sampling.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        metavar="T",
        help="below 1: more likely names; above 1: more unusual ones (default: %(default)s)",
    )
    sampling.add_argument(
        "--seed", type=int, default=1, metavar="N", help="random seed (default: %(default)s)"
    )
    sampling.add_argument(
        "--max-length",
        type=int,
        default=30,
        metavar="N",
        help="cut names at this many characters (default: %(default)s)",
    )
    sampling.add_argument(
        "--novel",
        action="store_true",
        help="print only distinct names that are not in the training data",
    )
    sampling.add_argument(
        "--novel-to",
        metavar="FILE",
        help="print only distinct names that are not in this list",
    )
    sampling.add_argument(
        "--unlike",
        type=int,
        metavar="D",
        help="like --novel, but at least D edits away from every name in the list",
    )
    sampling.add_argument(
        "--most-probable",
        action="store_true",
        help="print the most probable names and their likelihoods instead of samples",
    )
    sampling.add_argument(
        "--column",
        type=_column,
        metavar="NAME",
        help="for a table: heading or number of the column with the names",
    )
    sampling.add_argument(
        "--no-header",
        action="store_true",
        help="the table has no headings, and --column is a number",
    )
    sampling.add_argument("--json", action="store_true", help="print JSON")
    sampling.set_defaults(run=_sample)

    scoring = commands.add_parser(
        "score", help="print the likelihood of names", description=SCORE, epilog=named(SCORE_NOTES)
    )
    scoring.add_argument(
        "checkpoint", type=Path, help="the model, for example data/checkpoints/compact.safetensors"
    )
    scoring.add_argument(
        "names", nargs="*", default=[], metavar="NAME", help="names, or - for standard input"
    )
    scoring.add_argument(
        "--characters", action="store_true", help="also show each character and the end"
    )
    scoring.add_argument(
        "--skip-unknown",
        action="store_true",
        help="skip names that the model cannot read, and list them on standard error",
    )
    scoring.add_argument("--json", action="store_true", help="print JSON")
    scoring.set_defaults(run=_score)
    return parser, {"sample": sampling, "score": scoring}


def _column(text: str) -> str | int:
    """Return the number of a column, or its heading."""
    return int(text) if text.isdecimal() and int(text) else text


def _length(text: str) -> int | tuple[int, int]:
    """Return a number of characters, or a range (shortest, longest)."""
    if not re.fullmatch(r"[0-9]{1,9}(-[0-9]{1,9})?", text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor a range such as 3-7")
    shortest, _, longest = text.partition("-")
    return (int(shortest), int(longest)) if longest else int(shortest)


def _load(path: Path) -> "TrainedModel":
    from charlm import load

    try:
        return load(path)
    except FileError as error:
        raise InputError(
            f"{error}; give a checkpoint written by the pipeline, "
            "for example data/checkpoints/compact.safetensors"
        ) from None


def _sample(arguments: argparse.Namespace) -> Iterator[str]:
    if arguments.novel_to is None and (arguments.column is not None or arguments.no_header):
        option = "--no-header" if arguments.no_header else "--column"
        raise InputError(f"{option} applies to a table of names; pass the table with --novel-to")
    if arguments.most_probable and (arguments.temperature, arguments.seed) != (1, 1):
        option = "--seed" if arguments.temperature == 1 else "--temperature"
        raise InputError(f"{option} has no effect with --most-probable; remove it")
    model = _load(arguments.checkpoint)
    prefixes = [_read(model, prefix, "--prefix") for prefix in arguments.prefix] or [""]
    conditions = {
        "prefix": prefixes if len(prefixes) > 1 else prefixes[0],
        "suffix": _read(model, arguments.suffix, "--suffix"),
        "length": arguments.length,
        "max_length": arguments.max_length,
        "unlike": arguments.unlike,
    }
    drawing = {"temperature": arguments.temperature, "seed": arguments.seed}
    known = _known_names(arguments, model)
    shown = {"novel": known is not None, "most_probable": arguments.most_probable}
    if arguments.most_probable:
        scores = model.most_probable(arguments.count, novel_to=known, **conditions)
        if arguments.json:
            objects = [_as_object(score, characters=False) for score in scores]
            yield _as_json(arguments.checkpoint, **conditions, **shown, names=objects)
        else:
            yield HEADER + "\n".join(map(_as_row, scores))
        return
    names = model.iterate(count=arguments.count, novel_to=known, **conditions, **drawing)
    if arguments.json:
        shown |= {"names": list(names)}
        yield _as_json(arguments.checkpoint, **conditions, **drawing, **shown)
    else:
        while some := list(islice(names, AT_ONCE)):
            yield "\n".join(some)


def _known_names(arguments: argparse.Namespace, model: "TrainedModel") -> Iterable[str] | None:
    """Return the names to exclude, or None if no option asks for novel names."""
    from charlm.data.corpus import load_corpus

    if arguments.novel_to is not None:
        return _listed(arguments.novel_to, arguments.column, not arguments.no_header)
    if not arguments.novel and arguments.unlike is None:
        return None
    option = "--novel" if arguments.novel else "--unlike"
    path = Path(os.path.normpath(arguments.checkpoint.parent / os.pardir / DATASET))
    instead = "pass the training names with --novel-to FILE"
    try:
        corpus = load_corpus(path)
    except FileError as error:
        raise InputError(f"{error}, but {option} needs it; {instead}") from None
    if corpus.vocabulary != model.vocabulary:
        raise InputError(
            f"{arguments.checkpoint} was not trained on the names in {path}; {instead}"
        )
    return chain.from_iterable(corpus.name_chunks())


def _listed(path: str, column: str | int | None, header: bool) -> Iterator[str]:
    """Yield the names of a list, then print remarks about it to standard error."""
    from charlm.names.reading import Tally, name_blocks

    tally = Tally()
    yield from chain.from_iterable(name_blocks(path, column, header, tally))
    for remark in tally.remarks():
        print(remark, file=sys.stderr)


def _score(arguments: argparse.Namespace) -> Iterator[str]:
    given = _given(arguments.names)
    if (first := next(given, None)) is None:
        raise InputError("no names on standard input; give one per line, or pass arguments")
    given = chain([first], given)
    model = _load(arguments.checkpoint)
    header = "" if arguments.characters else HEADER
    objects: list[dict[str, Any]] = []
    skipped: list[dict[str, str]] = []
    total = 0
    while some := list(islice(given, AT_ONCE)):
        total += len(some)
        readable: dict[str, tuple[str, str]] = {}  # location: (name as given, name as read)
        for location, name in some:
            try:
                if not (cleaned := clean(name)):
                    raise InputError("the name is empty; remove it")
                readable[location] = name, model.fold(cleaned)
            except InputError as error:
                if not arguments.skip_unknown:
                    raise InputError(
                        f"{location}: {error}; add --skip-unknown to skip such names"
                    ) from None
                reason = str(error).rpartition("; ")[0]
                skipped.append({"given": name, "location": location, "reason": reason})
                print(f"skipped {location}: {reason}", file=sys.stderr)
        scores = model.score(*(read for _, read in readable.values()))
        if arguments.json:
            objects += (
                {"given": name, **_as_object(score, arguments.characters)}
                for (name, _), score in zip(readable.values(), scores, strict=True)
            )
        elif scores:
            as_text = _character_by_character if arguments.characters else _as_row
            yield header + "\n".join(map(as_text, scores))
            header = ""
    if arguments.json:
        more = {"skipped": skipped} if arguments.skip_unknown else {}
        yield _as_json(arguments.checkpoint, names=objects, **more)
    if skipped:
        print(f"skipped {len(skipped):,} of {total:,} names", file=sys.stderr, flush=True)


def _given(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield the location of each name, for error messages, and the name."""
    if names and names != ["-"]:
        return ((f"argument {n}", name.strip()) for n, name in enumerate(names, start=1))
    if sys.stdin is None or (not names and sys.stdin.isatty()):
        raise InputError("no names; pass them as arguments, or one per line on standard input")
    return _lines()


def _lines() -> Iterator[tuple[str, str]]:
    """Yield the location and text of each line of standard input that is not empty."""
    number = 0
    try:
        lines = chain.from_iterable(map(bytes.splitlines, sys.stdin.buffer))
        for number, line in enumerate(lines, start=1):
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            if clean(text):
                yield f"standard input, line {number}", text
    except UnicodeDecodeError as error:
        example = "" if sys.platform == "win32" else ", for example: iconv -f CP1252 -t UTF-8"
        raise InputError(
            f"standard input, line {number}: not UTF-8 (byte 0x{error.object[error.start]:02x}); "
            f"convert it first{example}"
        ) from None
    except OSError as error:
        raise InputError(
            f"cannot read standard input ({error.strerror}); pass the names as arguments"
        ) from None


def _read(model: "TrainedModel", text: str, location: str) -> str:
    """Convert `text` to the model's characters; prefix errors with its `location`."""
    try:
        return model.fold(text)
    except InputError as error:
        raise InputError(f"{location}: {error}") from None


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


def _as_object(score: "Score", characters: bool) -> dict[str, Any]:
    values: dict[str, Any] = {
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
    """Yield each character (None for the end), its probability and its log-likelihood."""
    for character, value in zip([*score.name, None], score.log_likelihoods, strict=True):
        yield character, math.exp(value), value


def _as_json(checkpoint: Path, **values: Any) -> str:
    return json.dumps({"checkpoint": str(checkpoint), **values}, indent=2, ensure_ascii=False)
