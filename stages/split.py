"""Deal the windows out to training, validation and test."""

from charlm.corpus import load_corpus
from charlm.params import blame, load_params
from charlm.randomness import generator
from charlm.splits import Part, save_split, split_windows
from stages import DATASET, SPLIT, record_environment, run


def main() -> None:
    params = load_params()
    split = params.split
    draws = generator(params.seed, "split")
    corpus = load_corpus(DATASET)
    with blame("split"):
        parts = split_windows(corpus, split.by, split.train, split.val, draws)
    save_split(SPLIT, parts)
    record_environment("split")
    sizes = [f"{part.name.lower()} {int((parts == part).sum()):,}" for part in Part]
    print(f"windows by {split.by}: {', '.join(sizes)}")


if __name__ == "__main__":
    run(main)
