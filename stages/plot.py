"""Draw what training and evaluation came to."""

from pathlib import Path

from charlm import figures
from charlm.checkpoint import load_embeddings
from charlm.files import read_metrics, read_numbers
from charlm.params import MODELS
from stages import (
    EVALUATION,
    checkpoint_path,
    history_path,
    record_environment,
    run,
)


def main() -> None:
    baselines = figures.COUNT_MODELS
    metrics = read_metrics(
        EVALUATION, [*MODELS, *baselines], ["test_loss", "test_loss_stderr", "parameters"]
    )
    embeddings = load_embeddings({name: checkpoint_path(name) for name in MODELS})
    titles = {name: embedding.title for name, embedding in embeddings.items()}
    histories = {
        titles[name]: read_numbers(history_path(name), ["epoch", "train_loss", "val_loss", "lr"])
        for name in MODELS
    }
    pictures = {
        f"{name}_loss": figures.loss_curves(
            titles[name], histories[titles[name]], metrics[name]["test_loss"]
        )
        for name in MODELS
    }
    pictures["losses"] = figures.all_loss_curves(histories)
    pictures["learning_rates"] = figures.learning_rates(histories)
    pictures["loss_by_parameters"] = figures.loss_against_parameters(
        {titles[name]: metrics[name] for name in MODELS},
        {title: metrics[name] for name, title in baselines.items()},
    )
    pictures["embeddings"] = figures.embedding_maps(
        {embedding.title: embedding.places for embedding in embeddings.values()},
        next(iter(embeddings.values())).vocabulary.symbols(),
    )
    for name, figure in pictures.items():
        figures.save(Path(f"plots/{name}.png"), figure)
    record_environment("plot")


if __name__ == "__main__":
    run(main)
