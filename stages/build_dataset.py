"""Encode a list of names as a vocabulary and a token stream."""

from pathlib import Path
from tempfile import TemporaryFile

from charlm.core.files import replacing, write_json
from charlm.core.params import blame
from charlm.data.corpus import Vocabulary, write_corpus
from charlm.names.reading import gather_names
from stages import DATASET, read_params, run


def main() -> None:
    params = read_params()
    names, block_size = params.names, params.block_size
    with replacing(DATASET) as partial, TemporaryFile(dir=partial.parent) as distinct:
        with blame("names"):
            found = gather_names(names.path, names.column, names.header, distinct)
        length = found.total_length + block_size * (found.count + 1)
        write_corpus(partial, distinct, Vocabulary(found.characters), block_size, length)
    facts = {
        "names": found.count,
        "characters": len(found.characters),
        "windows": found.total_length + found.count,
    }
    write_json(Path("metrics/dataset.json"), facts)
    print(
        f"{found.count:,} names from {found.tally.rows:,} {found.tally.unit}s "
        f"({found.duplicates:,} duplicates, {found.empty:,} empty), "
        f"{facts['characters']:,} characters, {facts['windows']:,} windows, "
        f"{found.longest:,} characters in the longest"
    )
    for remark in found.tally.remarks():
        print(remark)


if __name__ == "__main__":
    run(main)
