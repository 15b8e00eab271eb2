"""Count n-grams, and choose the order by validation loss."""

import pandas as pd

from charlm.core.files import write_csv
from charlm.core.params import blame, check_arguments
from charlm.data import checkpoint
from charlm.data.corpus import load_corpus
from charlm.data.splits import Part, load_split
from charlm.data.windows import windows_by_part
from charlm.fast.devices import set_up
from charlm.models.kneser_ney import KneserNey
from charlm.training.counting import count_by_order
from stages import DATASET, ORDERS, SPLIT, checkpoint_path, read_params, run


def main() -> None:
    params = read_params()
    check_arguments("kneser_ney", KneserNey, params.arguments("kneser_ney"))
    order = params.arguments("kneser_ney").get("order")
    with blame("device"):
        set_up("cpu", threads=1)  # counting does not use a GPU
    corpus = load_corpus(DATASET)
    windows = windows_by_part(corpus, load_split(SPLIT, corpus))
    model = KneserNey(len(corpus.vocabulary), corpus.block_size, order)
    orders = range(model.highest + 1) if order is None else [order]
    losses = {}
    for each, loss in count_by_order(model, windows[Part.TRAIN], windows[Part.VAL], orders):
        losses[each] = loss
        print(f"order {each}: val {loss:.4f}, {model.counted:,} counts")
    table = pd.DataFrame(losses.items(), columns=["order", "val_loss"])
    write_csv(ORDERS, table)
    checkpoint.save(checkpoint_path("kneser_ney"), model, corpus.vocabulary)
    print(f"{model.title}: order {model.order}")


if __name__ == "__main__":
    run(main)
