"""Evaluate every model and the n-gram baselines on all three sets."""

from pathlib import Path

import pandas as pd

import stages
from charlm.core.files import write_csv, write_json
from charlm.core.params import blame
from charlm.core.randomness import seeded
from charlm.data.checkpoint import load_for
from charlm.data.corpus import load_corpus
from charlm.data.splits import Part, load_split
from charlm.data.windows import windows_by_part
from charlm.evaluation import analysis
from charlm.evaluation.baselines import count_models
from charlm.evaluation.metrics import as_text, score, summarize
from charlm.fast.devices import set_up
from charlm.fast.running import Runner
from charlm.models.base import build, count_parameters

COMPARED = ("train_loss", "val_loss", "test_loss", "test_accuracy", "parameters")
"""Metrics of each model to compare between runs; the table has more."""


def main() -> None:
    params = stages.read_params()
    with blame("device"):
        device = set_up(params.device, threads=1)
    corpus = load_corpus(stages.DATASET)
    windows = windows_by_part(corpus, load_split(stages.SPLIT, corpus))
    placed = {part: part_windows.to(device) for part, part_windows in windows.items()}
    paths = stages.checkpoints(params.models)
    models = {name: load_for(path, corpus, build) for name, path in paths.items()}
    stages.refuse_changed_inputs()  # again, after importing the code of the models
    measured, losses, calibration, mistakes = {}, {}, [], []
    for name, loaded in models.items():
        model = Runner(loaded.to(device), params.fast)
        with seeded(params.seed, f"evaluate/{name}"):  # models can be random in evaluation, too
            scores = {p: score(model, placed[p], leave_out=p is Part.TRAIN) for p in Part}
            predicted, confidence = analysis.predictions(model, placed[Part.TEST])
        measured[name] = summarize(scores, count_parameters(model.model))
        losses[name], correct = scores[Part.TEST]
        calibration.append(analysis.calibration(confidence, correct).assign(model=name))
        wrong = analysis.mistakes(predicted, windows[Part.TEST].targets(), corpus.vocabulary)
        mistakes.append(wrong.assign(model=name))
    for name, counts in count_models(windows[Part.TRAIN], len(corpus.vocabulary)).items():
        scores = {part: counts.score(windows[part]) for part in Part}
        measured[name] = summarize(scores, counts.parameters)
    for column, keys in analysis.positions(windows[Part.TEST]).items():
        write_csv(stages.loss_by_path(column), analysis.mean_by(keys, losses, column))
    write_csv(stages.CALIBRATION, pd.concat(calibration))
    write_csv(stages.MISTAKES, pd.concat(mistakes))
    table = pd.DataFrame.from_dict(measured, orient="index").rename_axis("model").reset_index()
    write_csv(stages.COMPARISON, table.astype({"parameters": int}))
    metrics = {name: {key: measured[name][key] for key in COMPARED} for name in params.models}
    write_json(Path("metrics/evaluation.json"), metrics)
    print(as_text(measured, len(windows[Part.TEST])))
    for name in params.trained_models:
        if measured[name]["memorized"]:
            print(f"{name} has memorized its training names; {params.against_memorizing(name)}")


if __name__ == "__main__":
    stages.run(main)
