"""Draw what training and evaluation came to, and put it all on one page."""

from pathlib import Path

from charlm.core.files import read_metrics, read_numbers, write_text
from charlm.core.params import load_params
from charlm.data.checkpoint import load_weights
from charlm.report import figures
from stages import EVALUATION, REPORT, checkpoint_path, history_path, record_environment, run
from stages.report import METRICS, page


def main() -> None:
    params, baselines = load_params(), figures.COUNT_MODELS
    metrics = read_metrics(EVALUATION, [*params.models, *baselines], METRICS)
    weights = load_weights({name: checkpoint_path(name) for name in params.models})
    titles = {name: its.title for name, its in weights.items()}
    histories = {
        titles[name]: read_numbers(history_path(name), ["epoch", "train_loss", "val_loss", "lr"])
        for name in params.models
    }
    pictures = {
        f"{name}_loss": figures.loss_curves(
            titles[name], histories[titles[name]], metrics[name]["test_loss"]
        )
        for name in params.models
    }
    pictures["losses"] = figures.all_loss_curves(histories)
    pictures["learning_rates"] = figures.learning_rates(histories)
    pictures["loss_by_parameters"] = figures.loss_against_parameters(
        {titles[name]: metrics[name] for name in params.models},
        {title: metrics[name] for name, title in baselines.items()},
    )
    pictures["embeddings"] = figures.embedding_maps(
        {its.title: its.embedding for its in weights.values()},
        next(iter(weights.values())).vocabulary.symbols(),
    )
    for name, figure in pictures.items():
        figures.save(Path(f"plots/{name}.png"), figure)
    write_text(REPORT, page(params, metrics, weights, histories))
    record_environment("plot")
    print(f"all of it on one page: {REPORT}")


if __name__ == "__main__":
    run(main)
