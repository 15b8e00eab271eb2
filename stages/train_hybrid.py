"""Count n-grams and train the hybrid, which corrects them."""

from charlm.data.windows import Windows
from charlm.models.base import LanguageModel
from charlm.models.hybrid import Hybrid
from charlm.training.counting import NGrams
from stages import run
from stages.training import train


def count(model: LanguageModel, windows: Windows) -> None:
    """Fill in the counts of a hybrid."""
    assert isinstance(model, Hybrid)
    vocab_size, order = model.counts.vocab_size, windows.block_size
    model.counts.tables = NGrams(windows, vocab_size, order).tables(order)


def main() -> None:
    train("hybrid", Hybrid, prepare=count)


if __name__ == "__main__":
    run(main)
