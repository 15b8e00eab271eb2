"""The generalization gap: groups of contexts, and the tables of their losses."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest
import torch

from charlm.data.corpus import Corpus
from charlm.data.splits import Part
from charlm.fast.running import mean_loss
from experiments import gap
from tests.helpers import NAMES, small_corpus, small_model, small_split


def test_windows_are_grouped_by_how_often_others_have_their_context() -> None:
    names = NAMES + [f"{name}{letter}" for name in NAMES[:9] for letter in "ABC"]
    corpus = Corpus.from_names(names, 4)
    windows = small_split(corpus)
    contexts = {
        part: [tuple(row) for row in windows[part].batch(slice(None))[0].tolist()]
        for part in gap.PARTS
    }
    counts = Counter(contexts[Part.TRAIN])
    found = gap.groups_of(windows)
    for part, own in ((Part.TRAIN, 1), (Part.VAL, 0)):
        fewest = np.array(list(gap.GROUPS.values()))
        expected = [(counts[context] - own >= fewest).sum() - 1 for context in contexts[part]]
        assert found[part].tolist() == expected
    assert {0, 1, 2} <= set(found[Part.TRAIN])


def test_the_losses_of_the_groups_add_up_to_the_loss() -> None:
    corpus = small_corpus(8)
    windows = small_split(corpus)
    model = small_model(corpus)
    groups = gap.groups_of(windows)[Part.VAL]
    parts = gap.losses_by_group(model, windows[Part.VAL], groups)
    assert parts.sum() == pytest.approx(mean_loss(model, windows[Part.VAL]), rel=1e-5)
    alone = mean_loss(model, windows[Part.VAL].where(torch.from_numpy(groups == 0)))
    assert parts[0] == pytest.approx(alone * (groups == 0).mean(), rel=1e-5)


def test_the_table_compares_the_epoch_of_the_lowest_validation_loss_with_the_last() -> None:
    validation = {1: [2.0, 1.0], 2: [1.5, 1.0], 3: [3.0, 1.0]}  # losses of two groups, by epoch
    rows = [
        {"model": model, "seed": seed, "epoch": epoch, "part": part, "group": group}
        | {"loss": loss / (1 + (part == "training")) + seed / 10, "share": share}
        for model in gap.MODELS
        for seed in (1, 2)
        for epoch, losses in validation.items()
        for part in gap.PARTS.values()
        for group, loss, share in zip(
            gap.GROUPS, [*losses, 1.0, 1.0], [0.25, 0.75, 0, 0], strict=True
        )
    ]
    lines = gap.table(pd.DataFrame(rows)).splitlines()
    none, _, _, _, every = (line.split(" | ") for line in lines[2:7])
    assert none[:3] == ["| Fully connected net", "none", "25%"]
    # Training loss, validation loss and share of the gap, in the second epoch and in the last.
    assert none[3:] == [
        "0.900 ± 0.071",
        "1.650 ± 0.071",
        "0.188 ± 0.000",
        "1.650 ± 0.071",
        "3.150 ± 0.071",
        "0.375 ± 0.000 |",
    ]
    assert every[1:3] == ["all", "100%"]
    assert every[5] == f"{0.25 * 0.75 + 0.75 * 0.5:.3f} ± 0.000"


def test_the_figure_has_a_line_for_each_group_and_part() -> None:
    runs = pd.DataFrame(
        {"model": model, "seed": 1, "epoch": epoch, "part": part, "group": group, "loss": 2.0}
        for model in gap.MODELS
        for epoch in (1, 2)
        for part in gap.PARTS.values()
        for group in gap.GROUPS
    )
    figure = gap.draw(runs)
    for axes in figure.axes:
        assert len(axes.lines) == len(gap.GROUPS) * len(gap.PARTS)
