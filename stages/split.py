"""Split the windows into training, validation and test sets."""

from charlm.core.params import blame
from charlm.core.randomness import derive_seed
from charlm.data.corpus import load_corpus
from charlm.data.splits import save_split, split_windows
from stages import DATASET, SPLIT, read_params, run


def main() -> None:
    params = read_params()
    by, train, val = params.split.by, params.split.train, params.split.val
    corpus = load_corpus(DATASET)
    with blame("split"):
        split = split_windows(corpus, by, train, val, derive_seed(params.seed, "split"))
    save_split(SPLIT, split)
    sizes = [f"{part.name.lower()} {size:,}" for part, size in split.sizes(corpus).items()]
    print(f"split by {by}: {', '.join(sizes)} windows")


if __name__ == "__main__":
    run(main)
