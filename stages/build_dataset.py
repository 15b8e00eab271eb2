"""From a list of names to a vocabulary and a stream of tokens."""

from pathlib import Path

from charlm.corpus import Corpus, save_corpus
from charlm.files import write_json
from charlm.names import read_names
from charlm.params import blame, load_params
from stages import DATASET, record_environment, run


def main() -> None:
    params = load_params()
    with blame("names"):
        listed = read_names(Path(params.names.path), params.names.column)
    corpus = Corpus.from_names(listed.names, params.block_size)
    save_corpus(DATASET, corpus)
    facts = {
        "names": len(listed.names),
        "duplicates_dropped": listed.duplicates,
        "characters": len(corpus.vocabulary.characters),
        "windows": len(corpus.windows()),
        "longest_name": max(map(len, listed.names)),
    }
    write_json(Path("metrics/dataset.json"), facts)
    record_environment("build_dataset")
    print(", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in facts.items()))


if __name__ == "__main__":
    run(main)
