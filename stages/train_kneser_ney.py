"""Count n-grams, and choose their order by validation loss."""

import pandas as pd

from charlm.core.files import write_csv
from charlm.core.params import blame, check_arguments
from charlm.data import checkpoint
from charlm.data.corpus import load_corpus
from charlm.data.splits import Part, load_split
from charlm.data.windows import windows_by_part
from charlm.fast.devices import set_up
from charlm.fast.running import mean_loss
from charlm.models.kneser_ney import KneserNey
from charlm.training.counting import NGrams
from stages import DATASET, ORDERS, SPLIT, checkpoint_path, read_params, run


def main() -> None:
    params = read_params()
    check_arguments("kneser_ney", KneserNey, params.arguments("kneser_ney"))
    order = params.arguments("kneser_ney").get("order")
    with blame("device"):
        set_up("cpu", threads=1)  # there is nothing for a GPU to do
    corpus = load_corpus(DATASET)
    windows = windows_by_part(corpus, load_split(SPLIT, corpus))
    model = KneserNey(len(corpus.vocabulary), corpus.block_size, order)
    ngrams = NGrams(windows[Part.TRAIN], len(corpus.vocabulary), model.highest)
    losses = {}
    for each in range(model.highest + 1) if order is None else [order]:
        model.tables = ngrams.tables(each)
        losses[each] = mean_loss(model, windows[Part.VAL])
        print(f"order {each}: val {losses[each]:.4f}, {model.counted:,} counts")
    model.tables = ngrams.tables(min(losses, key=lambda each: losses[each]))
    table = pd.DataFrame(losses.items(), columns=["order", "val_loss"])
    write_csv(ORDERS, table)
    checkpoint.save(checkpoint_path("kneser_ney"), model, corpus.vocabulary)
    print(f"{model.title}: order {model.order}")


if __name__ == "__main__":
    run(main)
