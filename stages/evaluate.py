"""Measure every model, and the count baselines beside them, on the whole split."""

import pandas as pd

from charlm.core.files import write_csv, write_json
from charlm.core.params import blame, load_params
from charlm.data.checkpoint import load_for
from charlm.data.corpus import load_corpus
from charlm.data.splits import Part, load_split
from charlm.data.windows import windows_by_part
from charlm.evaluation import analysis
from charlm.evaluation.baselines import count_models
from charlm.evaluation.metrics import score, summarise
from charlm.fast.devices import set_up
from charlm.fast.running import Runner
from charlm.models.base import build, count_parameters
from stages import (
    DATASET,
    EVALUATION,
    MISTAKES,
    SPLIT,
    calibration_path,
    checkpoint_path,
    loss_by_path,
    record_environment,
    run,
)


def main() -> None:
    params = load_params()
    with blame("device"):
        device = set_up(params.device, threads=1)
    corpus = load_corpus(DATASET)
    windows = windows_by_part(corpus, load_split(SPLIT, corpus))
    test = windows[Part.TEST]
    metrics, losses, mistakes = {}, {}, []
    for name in params.models:
        model = Runner(load_for(checkpoint_path(name), corpus, build).to(device), params.fast)
        scores = {part: score(model, windows[part].to(device)) for part in Part}
        metrics[name] = summarise(scores, count_parameters(model.model))
        losses[name], correct = scores[Part.TEST]
        predicted, confidence = analysis.predictions(model, test.to(device))
        write_csv(calibration_path(name), analysis.calibration(confidence, correct))
        table = analysis.mistakes(predicted, test.targets(), corpus.vocabulary)
        mistakes.append(table.assign(model=name))
    for name, counts in count_models(windows[Part.TRAIN], len(corpus.vocabulary)).items():
        scores = {part: counts.score(windows[part]) for part in Part}
        metrics[name] = summarise(scores, counts.parameters)
        losses[name], _ = scores[Part.TEST]
    for place, its in analysis.places(test).items():
        write_csv(loss_by_path(place), analysis.mean_by(its, losses, place))
    write_csv(MISTAKES, pd.concat(mistakes))
    write_json(EVALUATION, metrics)
    record_environment("evaluate", device)
    for name, values in metrics.items():
        loss, error = values["test_loss"], values["test_loss_stderr"]
        print(f"{name:10} test loss {loss:#.5g} ± {error:.1g}, {values['parameters']:,} parameters")


if __name__ == "__main__":
    run(main)
