"""Draw the figures and write the report."""

import stages
from charlm.core.files import replacing, write_text
from charlm.data.checkpoint import load_weights
from charlm.data.corpus import load_corpus
from charlm.data.splits import Part, load_split
from charlm.report import charts, figures, page, results
from charlm.report.nearest import nearest_names


def main() -> None:
    corpus = load_corpus(stages.DATASET)
    split = load_split(stages.SPLIT, corpus)
    params = stages.read_params()
    trained = params.trained_models
    params = params.sized(split.sizes(corpus)[Part.TRAIN], *trained)
    source = page.Source.of(params, corpus, split)
    weights = load_weights(stages.checkpoints(params.models))
    measured = results.read_comparison(stages.COMPARISON, [*params.models, *figures.COUNT_MODELS])
    calibration = results.read_calibration(stages.CALIBRATION, params.models)
    mistakes = results.read_mistakes(stages.MISTAKES, params.models)
    histories = {name: results.read_history(stages.history_path(name)) for name in trained}
    models = {}
    for name in params.models:
        samples = results.read_samples(stages.SAMPLES / f"{name}.csv")
        models[name] = page.Trained(
            weights=weights[name],
            recipe=params.recipe(name) if name in trained else None,
            metrics=measured[name],
            history=histories.get(name),
            calibration=calibration[name],
            mistakes=mistakes[name],
            samples=samples,
            nearest=nearest_names(samples["name"].head(page.SHOWN).tolist(), corpus),
            advice=params.against_memorizing(name) if name in trained else "",
        )
    counts = {name: measured[name] for name in figures.COUNT_MODELS}
    loss_by = {
        place: results.read_loss_by(stages.loss_by_path(place), place, params.models)
        for place in ("position", "length")
    }
    pictures = {
        "losses": charts.losses_and_rates(
            {weights[name].title: history for name, history in histories.items()},
            [its.title for its in weights.values()],
        ),
        "loss_by_parameters": figures.loss_against_parameters(
            {its.title: its.metrics for its in models.values()},
            {title: counts[name] for name, title in figures.COUNT_MODELS.items()},
        ),
        "embeddings": figures.embedding_maps(
            {its.title: its.embedding for its in weights.values()},
            next(iter(weights.values())).vocabulary.symbols(),
        ),
    }
    with replacing(stages.FIGURES) as folder:
        for name, picture in pictures.items():
            figures.save(folder / f"{name}.png", picture)
    write_text(stages.REPORT, page.render(source, models, counts, loss_by))
    print(f"report: {stages.REPORT}")


if __name__ == "__main__":
    stages.run(main)
