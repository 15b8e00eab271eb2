"""What the results of a run say: a sentence for each section of the report, as its heading.

Each is computed from the results, whatever the models and the list of names are.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from charlm.data.corpus import printable
from charlm.data.splits import FEW_WINDOWS

if TYPE_CHECKING:
    import pandas as pd

LARGE_ERROR = 0.05
"""Standard error of a test loss, in nats, above which the report warns: models differ by less."""

EXACTLY = 20
"""Number of generated names up to which the new ones are counted, not rounded to tenths."""

LIKELY = 0.8
"""Confidence for which the accuracy is reported."""

PHRASES = {
    "Fully connected net": "the fully connected net",
    "Compact WaveNet": "the compact WaveNet",
    "Hybrid": "the hybrid",
    "Kneser-Ney": "Kneser-Ney",
    "Mixture": "the mixture",
    "Uniform": "the uniform distribution",
    "Unigram": "unigram counts",
    "Bigram": "bigram counts",
}
"""Titles as they are written in a sentence; all others get an article."""

SYMBOLS = {"(end)": "the end of a name", "(rest)": "a rare character"}
"""The labels of `analysis.mistakes` that are not a character."""

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
ORDINALS = (
    *("first", "second", "third", "fourth", "fifth"),
    *("sixth", "seventh", "eighth", "ninth", "tenth"),
)


# Parts of sentences.


def called(title: str) -> str:
    """Return the title of a model as it is written in a sentence."""
    return PHRASES.get(title, f"the {title}")


def sentence(text: str) -> str:
    """Return a text with a capital letter in front."""
    return text[:1].upper() + text[1:]


def listed(parts: Sequence[str]) -> str:
    """Join parts of a sentence: "a", "a and b", "a, b, and c"."""
    *front, last = parts
    if len(front) > 1:
        return f"{', '.join(front)}, and {last}"
    return " and ".join(parts)


def named(titles: Sequence[str]) -> str:
    """Name one or two models in a sentence, or say how many they are."""
    if len(titles) > 2:
        return f"{in_words(len(titles))} models"
    return listed([*map(called, titles)])


def many(count: int, noun: str) -> str:
    """Return a number and a noun: "1 name", "31,704 names"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def in_words(count: int) -> str:
    """Return a small number as a word, a larger one in figures."""
    return NUMBERS[count] if count < len(NUMBERS) else f"{count:,}"


def ordinal(number: int) -> str:
    """Return "first", "second" and so on, from 11 in figures."""
    if number <= len(ORDINALS):
        return ORDINALS[number - 1]
    last = 0 if number % 100 in (11, 12, 13) else number % 10
    ending = {1: "st", 2: "nd", 3: "rd"}.get(last, "th")
    return f"{number}{ending}"


def percent(fraction: float) -> str:
    """Return a fraction in whole percent; 0% and 100% only if it is exactly that."""
    if 0 < fraction < 0.01:
        return "less than 1%"
    if 0.99 < fraction < 1:
        return "more than 99%"
    return f"{fraction:.0%}"


def symbol(label: str) -> str:
    """Return a label of `analysis.mistakes` in quotes, isolated from the direction of the text."""
    return SYMBOLS.get(label) or f"“\u2068{printable(label)}\u2069”"


# Findings.


def generated(title: str, in_training: Sequence[bool]) -> str:
    """Say how many of the names that a model generated are new."""
    count, new = len(in_training), len(in_training) - sum(in_training)
    model = called(title)
    if new in (0, count):
        every = "Every" if new else "No"
        return f"{every} name from {model} is new"
    tenths = round(10 * new / count)
    if count <= EXACTLY:
        return f"{new} of {count} names from {model} {'is' if new == 1 else 'are'} new"
    if tenths in (0, 10):
        return f"Almost {'every' if tenths else 'no'} name from {model} is new"
    about = "" if 10 * new == tenths * count else "About "
    return f"{about}{tenths} of 10 names from {model} {'is' if tenths == 1 else 'are'} new"


def comparison(
    models: Mapping[str, Mapping[str, float]], baselines: Mapping[str, Mapping[str, float]]
) -> str:
    """Say which has the lowest test loss.

    Args:
        models: `test_loss` and `test_loss_stderr` of each model, by title.
        baselines: those of the n-gram baselines.
    """
    every = {**models, **baselines}
    losses = {title: f"{its['test_loss']:.4f}" for title, its in every.items()}
    best = min(every, key=lambda title: every[title]["test_loss"])
    ties = [title for title, loss in losses.items() if loss == losses[best]]
    loss = f"{losses[best]} ± {every[best]['test_loss_stderr']:.4f}"
    if not models.keys() & set(ties):
        return f"No model beats the test loss of {called(best)}: {loss}"
    if len(ties) > 1:
        return f"{sentence(named(ties))} share the lowest test loss: {loss}"
    return f"{sentence(called(best))} has the lowest test loss: {loss}"


def uncertain(windows: int, error: float) -> str:
    """Warn of a test set too small for the losses to mean much; empty if it is not.

    Args:
        windows: number of test windows.
        error: the standard error of a test loss.
    """
    if windows < FEW_WINDOWS:
        only = f"The test set has only {many(windows, 'character')}"
        return f"{only}, so these losses say little about other names."
    if error > LARGE_ERROR:
        known = f"so a test loss is known only to about ± {error:.2f}"
        return f"The test set has {many(windows, 'character')}, {known}."
    return ""


def curves(histories: "Mapping[str, pd.DataFrame]", memorized: Sequence[str]) -> str:
    """Say whether the models overfit.

    Args:
        histories: `val_loss` of each epoch, by title; at least one.
        memorized: titles of the models that have memorized their training names.
    """
    if memorized:
        one = len(memorized) == 1
        which = "memorizes its training names" if one else "memorize their training names"
        return f"{sentence(named(memorized))} {which}"
    losses = {title: its["val_loss"].to_numpy() for title, its in histories.items()}
    best = {title: int(its.argmin()) + 1 for title, its in losses.items()}
    past = [title for title, its in losses.items() if best[title] < len(its)]
    if past:
        worst = max(past, key=lambda title: losses[title][-1] - losses[title].min())
        epoch = f"epoch {best[worst]} of {len(losses[worst])}"
        return f"The validation loss of {called(worst)} is lowest at {epoch}"
    improving = [title for title, its in losses.items() if len(its) > 1]
    if not improving:
        return "Training lasted one epoch"
    if len(improving) == 1:
        return f"{sentence(called(improving[0]))} is still improving in its last epoch"
    models = "all trained models" if len(improving) == len(losses) else named(improving)
    return f"{sentence(models)} are still improving in their last epoch"


def position(table: "pd.DataFrame", titles: Mapping[str, str], best: str) -> str:
    """Say which characters of a name are the hardest to predict.

    Args:
        table: loss by position, a column per model.
        titles: titles of the columns.
        best: the column that counts if the models disagree.
    """
    places = table["position"].tolist()
    if len(places) == 1:
        return f"Every test character is the {ordinal(places[0])} of its name"
    hardest = {}
    for name in titles:
        losses = table[name].round(2)
        hardest[name] = table["position"][losses == losses.max()].tolist()
    start = _agreed(hardest, titles, best)
    found = hardest[best]
    if len(found) == len(places):
        return sentence(f"{start}all positions in a name are equally hard")
    if len(found) == 1:
        return sentence(f"{start}the {ordinal(found[0])} character is the hardest to predict")
    which = listed([ordinal(place) for place in found])
    return sentence(f"{start}the {which} characters are the hardest to predict")


def length(table: "pd.DataFrame", titles: Mapping[str, str], best: str) -> str:
    """Say whether long names are easier to predict than short ones; as `position` otherwise.

    A name is long if it is longer than that of the median window.
    """
    lengths = table["length"].tolist()
    if len(lengths) == 1:
        return f"Every test name has {many(lengths[0], 'character')}"
    windows = table["windows"].to_numpy()
    middle = int((windows.cumsum() * 2 >= windows.sum()).argmax())
    longest = lengths[min(middle, len(lengths) - 2)]  # of the short ones
    short = table["length"].to_numpy() <= longest
    verdicts = {}
    for name in titles:
        means = [
            round(float(np.average(table[name][part], weights=windows[part])), 2)
            for part in (short, ~short)
        ]
        verdicts[name] = (means[0] > means[1]) - (means[0] < means[1])
    start = _agreed(verdicts, titles, best)
    how = {1: "easier to predict than", -1: "harder to predict than", 0: "as hard to predict as"}
    than = f"{how[verdicts[best]]} shorter ones"
    long = f"names of more than {many(longest, 'character')}"
    return sentence(f"{start}{long} are, on average, {than}")


def _agreed(verdicts: Mapping[str, Any], titles: Mapping[str, str], best: str) -> str:
    """Return nothing if all models agree, or else for which model the verdict is given."""
    agreed = all(verdict == verdicts[best] for verdict in verdicts.values())
    return "" if agreed else f"for {called(titles[best])}, "


def mistake(title: str, worst: Sequence[Mapping[str, Any]]) -> str:
    """Say which mistake a model makes most often.

    Args:
        worst: its most frequent mistakes, as from `tables.worst_mistakes`.
    """
    model = called(title)
    if not worst:
        return f"{sentence(model)} predicts every test character correctly"
    count = worst[0]["windows"]
    ties = [row for row in worst if row["windows"] == count]
    if len(ties) > 2 and count == 1:
        return f"{sentence(model)} makes no mistake twice"
    if len(ties) > 2:
        return f"No mistake of {model} stands out"
    pairs = listed([confusion(row) for row in ties])
    if len(ties) == 2:
        return f"The most frequent mistakes of {model} are {pairs}"
    return f"The most frequent mistake of {model} is {pairs}"


def confusion(row: Mapping[str, Any]) -> str:
    """Describe a row of `analysis.mistakes`."""
    return f"{symbol(row['predicted'])} instead of {symbol(row['actual'])}"


def calibration(title: str, table: "pd.DataFrame") -> str:
    """Say how often a model is right when it is quite sure.

    Args:
        table: results of `analysis.calibration`.
    """
    nearest = (table["confidence"] - LIKELY).abs().argmin()
    confidence, accuracy = table["confidence"].iloc[nearest], table["accuracy"].iloc[nearest]
    sure = f"When {called(title)} is {percent(confidence)} sure"
    return f"{sure}, it is right {percent(accuracy)} of the time"


def calibrated(errors: Mapping[str, float]) -> str:
    """Say which model is calibrated best and which worst.

    Args:
        errors: the calibration error of each model, by title.
    """
    points = {title: f"{100 * error:.1f}" for title, error in errors.items()}
    best, worst = (get(errors, key=lambda title: errors[title]) for get in (min, max))
    if points[best] == points[worst]:
        every = "The model is" if len(errors) == 1 else "All models are"
        return f"{every} {points[best]} percentage points off on average."
    return (
        f"On average, {called(best)} is off by {points[best]} percentage points (the least) and "
        f"{called(worst)} by {points[worst]} (the most)."
    )


def novelty(novel: Mapping[str, float]) -> str:
    """Say which model generates the most new names and which the fewest.

    Args:
        novel: the fraction of generated names that are new, by title.
    """
    shares = {title: percent(fraction) for title, fraction in novel.items()}
    highest, lowest = (shares[get(novel, key=lambda t: novel[t])] for get in (max, min))
    if highest == lowest:
        models = called(next(iter(novel))) if len(novel) == 1 else "every model"
        return f"{sentence(highest)} of the names from {models} are new"
    most, fewest = ([t for t, its in shares.items() if its == end] for end in (highest, lowest))
    if min(len(most), len(fewest)) > 2:
        return f"{sentence(lowest)} to {highest} of the names from a model are new"
    verb = "generates" if len(most if len(most) <= 2 else fewest) == 1 else "generate"
    if len(most) > 2:
        return f"{sentence(named(fewest))} {verb} the fewest new names ({lowest})"
    text = f"{sentence(named(most))} {verb} the most new names ({highest})"
    return text if len(fewest) > 2 else f"{text}, {named(fewest)} the fewest ({lowest})"


def closest(
    embedding: NDArray[np.floating], characters: str, labels: Sequence[str]
) -> tuple[str, float] | None:
    """Return the two characters with the most similar embeddings, and their cosine similarity.

    Args:
        embedding: (V, C).
        characters: those of the tokens 1, 2, ...
        labels: the characters that are compared; any other label is left out.

    Returns None if fewer than two are left.
    """
    tokens = [token for token, its in enumerate(characters, 1) if its in labels]
    if len(tokens) < 2:
        return None
    vectors = embedding[tokens].astype("f8")
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True).clip(min=1e-12)
    similarity = np.triu(vectors @ vectors.T + 2, 1)  # (n, n), at least 1 for each pair
    row, column = np.unravel_index(similarity.argmax(), similarity.shape)
    pair = [symbol(characters[tokens[i] - 1]) for i in (row, column)]
    return listed(pair), float(similarity[row, column] - 2)


def embedding(pairs: Mapping[str, tuple[str, float] | None]) -> str:
    """Say which two characters have the most similar vectors, and in which model.

    Args:
        pairs: the result of `closest` for each model, by title.
    """
    found = {title: pair for title, pair in pairs.items() if pair}
    if not found:
        return "A model has a vector for each character"
    title = max(found, key=lambda title: found[title][1])
    return f"To {called(title)}, {found[title][0]} are the most similar"


def tree(block_size: int) -> str:
    """Say how many times a WaveNet merges its context."""
    merges = block_size.bit_length() - 1
    if not merges:
        return "With one character of context, there is nothing to merge"
    verb = "merge turns" if merges == 1 else "merges turn"
    return f"{sentence(in_words(merges))} {verb} {block_size} characters into one vector"


def data(names: int, windows: int) -> str:
    """Say how much there is to learn from."""
    verb = "gives" if names == 1 else "give"
    return f"{many(names, 'name')} {verb} {many(windows, 'character')} to predict"
