"""Count n-grams, and train the hybrid, which corrects the counts."""

from charlm.data.windows import Windows
from charlm.models.base import LanguageModel
from charlm.models.hybrid import Hybrid
from charlm.training.counting import count
from stages import run
from stages.training import train


def prepare(model: LanguageModel, windows: Windows) -> None:
    """Set the counts of a hybrid."""
    assert isinstance(model, Hybrid)
    count(model.counts, windows)


def main() -> None:
    train("hybrid", Hybrid, prepare=prepare)


if __name__ == "__main__":
    run(main)
