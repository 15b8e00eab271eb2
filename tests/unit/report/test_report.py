"""The report as text: its content, and that it is self-contained."""

import dataclasses
import itertools
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from typing import Any
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from rapidfuzz.distance.Levenshtein import distance
from torch import Tensor

from charlm.core.params import Recipe
from charlm.data.checkpoint import Weights
from charlm.data.corpus import END, Corpus
from charlm.data.windows import every_window
from charlm.evaluation.metrics import score
from charlm.models.base import LanguageModel, count_parameters
from charlm.models.compact import CompactWaveNet
from charlm.models.fcn import FCN
from charlm.models.hybrid import Hybrid
from charlm.models.kneser_ney import KneserNey
from charlm.models.mixture import Mixture
from charlm.models.wavenet import WaveNet
from charlm.report import charts, figures, findings, live
from charlm.report import page as report
from charlm.report.tables import Tree, calibration_error, in_use, mistake_grid, worst_mistakes
from charlm.sampling.sampler import name_log_likelihoods
from charlm.training.counting import count
from tests.helpers import NAMES, few, run_python, small_corpus, small_model
from tests.reports import EVERY_KIND, drawn, leave_charts_out, report_of, weights_of

CORPUS = small_corpus(8)
MODELS = {
    "a": small_model(CORPUS, FCN, hidden_dim=40),
    "b": small_model(CORPUS, WaveNet, hidden_dim=40),
    "c": small_model(CORPUS, CompactWaveNet),
}
MEBIBYTE = 1 << 20


def counting() -> dict[str, LanguageModel]:
    """Return a net, counts of all names (which have the lowest loss), and a mixture."""
    return {"c": MODELS["c"], "d": drawn(KneserNey, CORPUS), "e": drawn(Mixture, CORPUS)}


@pytest.fixture(scope="module")
def page() -> str:
    return report_of(MODELS, CORPUS)


class Elements(HTMLParser):
    """Parses the elements of a page with their attributes, and its text."""

    VOID = frozenset(["meta", "link", "input", "br", "img"])

    def __init__(self, page: str) -> None:
        super().__init__()
        self.all: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.all.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.all.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)


def test_the_page_is_well_formed_and_self_contained(page: str) -> None:
    elements = Elements(page)
    identifiers = Counter(its["id"] for _, its in elements.all if "id" in its)
    assert set(identifiers.values()) == {1}
    for tag, attributes in elements.all:
        for name in ("src", "href", "xlink:href", "action"):
            target = attributes.get(name) or "#"
            assert target.startswith(("#", "data:")), (tag, target)
            if len(target) > 1 and target.startswith("#"):
                assert target[1:] in identifiers, target
        for name in ("for", "aria-labelledby", "aria-describedby"):
            assert set((attributes.get(name) or "").split()) <= set(identifiers)
    used = set(re.findall(r"url\(#([^)]+)\)", page))
    assert used <= set(identifiers)
    assert "@import" not in page
    assert "http" not in page.replace("http://www.w3.org/", "")


def test_the_page_has_every_section(page: str) -> None:
    text = " ".join(" ".join(Elements(page).text).split())
    for topic in (
        "Generator",
        "Comparison",
        "Loss curves",
        "Loss by position",
        "Loss by length",
        "Mistakes",
        "Calibration",
        "Names",
        "Embeddings",
        "Tree",
        "Data",
    ):
        assert text.count(f" {topic} ") >= 2, "in the table of contents and above its heading"
    for content in ("Expected calibration error", "position in the name", "length of the name"):
        assert content in text
    for model in MODELS.values():
        assert text.count(model.title) > 7
        assert f"{count_parameters(model):,}" in text
    for title in figures.COUNT_MODELS.values():
        assert title in text
    memorized = "The fully connected net has memorized its training names"
    assert text.count("has memorized its training names") == text.count(memorized) == 1
    assert "Try <code>dvc exp run -S ++a.keep=best</code>." in page
    assert "Three models were trained on the 28 names in names.txt to predict" in text


def headings(page: str, kind: str = "h2") -> list[str]:
    found = re.findall(f"<{kind}[^>]*>(.*?)</{kind}>", page, flags=re.DOTALL)
    return [unescape(re.sub("<[^>]+>", "", text)).strip() for text in found]


def test_every_heading_is_a_finding_of_the_run(page: str) -> None:
    found = headings(page)
    assert len(found) == page.count("<section ") == 11
    assert re.search(r"names? from the .* (is|are) new$", found[0])
    assert re.search(
        r"has the lowest test loss: \d\.\d{4} ± |^No model beats the test loss of ", found[1]
    )
    assert found[2] == "The fully connected net memorizes its training names"
    assert "Three merges turn 8 characters into one vector" in found
    assert found[-1].startswith("28 names give ")
    topics = re.findall('<li><a href="#([a-z]+)">', page)
    assert topics == re.findall('<section id="([a-z]+)"', page)
    assert topics[:3] == ["generator", "comparison", "curves"]


def test_the_page_opens_with_generated_names(page: str) -> None:
    """They are those of the pipeline, and they do not need JavaScript."""
    body = page.partition("<h2")[2]
    opening = re.search('<ol id="generated".*?</ol>', body, flags=re.DOTALL)
    assert opening
    names = re.findall(r"<bdi class=\"name\">([^<]+)</bdi>.*?>−(\d+\.\d)<", opening[0])
    assert len(names) == report.OPENING == 10
    tables = re.findall('<table class="samples">.*?</table>', page, flags=re.DOTALL)
    (its,) = [table for table in tables if f"</span>{running(page)[0]}</caption>" in table]
    rows = re.findall(r'<bdi class="name">([^<]+)</bdi></th><td class="number">−([\d.]+)', its)
    assert rows[:10] == names


def test_a_small_test_set_is_pointed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_charts_out(monkeypatch)
    few = Corpus.from_names(["A", "BC", "AD"], 4)
    assert "The test set has only 8 characters" in report_of({"a": small_model(few, FCN)}, few)
    many = Corpus.from_names(NAMES * 40, 4)
    assert 'class="warning"' not in report_of({"a": small_model(many, FCN)}, many)


def test_sections_without_results_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_charts_out(monkeypatch)
    page = report_of({"d": drawn(KneserNey, CORPUS)}, CORPUS, trained=False)
    Elements(page)
    for section in ("curves", "embedding", "tree"):
        assert f'id="{section}"' not in page
        assert f'href="#{section}"' not in page
    assert "One model was trained on" in page


def test_every_drawing_has_an_alternative_text_with_numbers(page: str) -> None:
    elements = Elements(page).all
    drawings = [its["aria-label"] for tag, its in elements if its.get("role") == "img"]
    svgs = [its for tag, its in elements if tag == "svg"]
    assert len(drawings) == len(svgs)
    assert all(its["aria-hidden"] == "true" for its in svgs)
    assert all(label and len(label) > 40 and re.search(r"\d", label) for label in drawings)
    assert len(set(drawings)) == len(drawings)


def test_headings_are_in_order(page: str) -> None:
    levels = [int(tag[1]) for tag, _ in Elements(page).all if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_the_metrics_are_those_of_the_models(page: str) -> None:
    rows = re.findall(r'<tr><th scope="row">.*?</tr>', page, flags=re.DOTALL)
    table = {re.sub("<[^>]+>", "", row.split("</th>")[0]).strip(): row for row in rows[::-1]}
    losses = []
    for title in (*(model.title for model in MODELS.values()), "Bigram", "Uniform"):
        loss, error = re.search(r"([\d.]+) ± ([\d.]+)", table[title]).groups()
        bits, perplexity = re.findall(r'"number">([\d.]+)</td>', table[title])[:2]
        assert float(bits) == pytest.approx(float(loss) / math.log(2), abs=2e-3)
        assert float(perplexity) == pytest.approx(math.exp(float(loss)), rel=1e-2)
        assert 0 <= float(error) < float(loss) / 10
        losses.append(float(loss))
    shown = [float(loss) for loss in re.findall(r"([\d.]+) ± [\d.]+</td>", page)]
    assert shown == sorted(shown)
    assert set(losses) <= set(shown)


def test_samples_are_marked_and_have_a_neighbor(page: str) -> None:
    row = r'<tr><th scope="row"([^>]*)><bdi class="name">([^<]+)</bdi></th>(.*?)</tr>'
    page = page.partition('id="samples"')[2]
    rows = re.findall(row, page, re.DOTALL)
    samples = [row for row in rows if "−" in row[2]]
    assert len(samples) == 12 * len(MODELS)
    for mark, sampled, rest in samples:
        assert ("new" in mark) == ('class="name"' in rest)
        assert ("in training set" in rest) == ("new" not in mark)
        if "new" in mark:
            neighbor = re.search(r'class="name">([^<]+)</bdi></td><td class="number">(\d+)<', rest)
            assert unescape(neighbor[1]) in NAMES
            assert int(neighbor[2]) == distance(unescape(sampled), unescape(neighbor[1]))


def test_the_same_results_give_the_same_bytes_in_another_process() -> None:
    page = report_of(counting(), CORPUS)
    assert running(page)[0] == KneserNey.title
    code = (
        "from tests.unit.report.test_report import *; print(report_of(counting(), CORPUS), end='')"
    )
    assert run_python(code, PYTHONHASHSEED="2", MPLCONFIGDIR="/nowhere") == page


HOSTILE = ["</script><b>", "'\"&<", "{{ 1 }}", "<!--", "a\\u0041", "\u2028\U0001f600"]


def test_names_with_any_characters_do_no_harm() -> None:
    corpus = Corpus.from_names([*HOSTILE, "."], 4)
    page = report_of({"c": small_model(corpus, CompactWaveNet)}, corpus)
    elements = Elements(page)
    assert not any(tag == "b" for tag, _ in elements.all)
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", page, flags=re.DOTALL)
    assert len(scripts) == 3
    assert "".join(json.loads(scripts[1])["characters"]) == corpus.vocabulary.characters


MIXED = ["بی\u200cتا", "علي", "יוֹסֵף", "שרה 7", "عمر (2)", "ALI", "\u200cAB", "X Y", "דוד-בן"]


class Isolated(Elements):
    """Finds the texts of a page with right-to-left letters, and those that are not isolated."""

    def __init__(self, page: str) -> None:
        self.found: list[str] = []
        self.exposed: list[str] = []
        super().__init__(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        for _, value in attrs:
            self._check_plain(value or "")

    def handle_data(self, data: str) -> None:
        around = [*self.open]
        if around and around[-1] in ("title", "h2", "small"):
            self._check_plain(data)
        elif from_right(data) and "script" not in around:
            self.found.append(data)
            # An SVG label is on its own and has one character.
            if "bdi" not in around and not (around[-1] == "text" and len(data.strip("◌")) == 1):
                self.exposed.append(data)

    def _check_plain(self, text: str) -> None:
        """Check text that is isolated by characters instead of elements."""
        if from_right(text):
            self.found.append(text)
            if from_right(re.sub("\u2068[^\u2068\u2069]*\u2069", "", text)):
                self.exposed.append(text)


def from_right(text: str) -> bool:
    return any(unicodedata.bidirectional(character) in ("R", "AL") for character in text)


@pytest.fixture(scope="module")
def mixed() -> str:
    corpus = Corpus.from_names(MIXED, 4)
    models = {"a": small_model(corpus, FCN), "c": small_model(corpus, CompactWaveNet)}
    return report_of(models, corpus)


def test_every_name_is_isolated_from_the_text_direction_beside_it(mixed: str) -> None:
    page = Isolated(mixed)
    assert page.exposed == []
    assert len(page.found) > 100
    (beginning,) = (its for tag, its in page.all if its.get("id") == "prefix")
    assert beginning["dir"] == "auto"


def test_no_label_of_a_character_is_invisible(mixed: str) -> None:
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", mixed)
    cells = re.findall(r'<bdi class="name">([^<]*)</bdi></t[hd]><td class="n', mixed)
    for label in [*texts, *cells]:
        assert label.strip(" \u200c"), "nothing to be seen"
    assert {"␣", "U+200C", "◌\u05b5"} <= set(texts)
    for drawing in ("mistakes", "tree"):
        svg = re.search(rf'<svg class="{drawing}".*?</svg>', mixed, flags=re.DOTALL)
        assert svg is not None
        assert "U+200C" in svg[0]


def running(page: str) -> list[str]:
    """Return the titles of the models that run in a page, in the order of the menu."""
    found = re.search('id="live">(.*?)</script>', page, flags=re.DOTALL)
    assert ('id="generator-form"' in page) == (found is not None)
    titles = [its["title"] for its in json.loads(found[1])["models"]] if found else []
    assert titles == re.findall("<option[^>]*>([^<]*)</option>", page)
    return titles


def test_a_page_of_large_models_and_many_characters_is_small_enough() -> None:
    rng = np.random.default_rng(1)
    characters = [chr(0x4E00 + i) for i in range(2000)]
    names = ["".join(rng.choice(characters, 2)) for _ in range(1000)]
    corpus = Corpus.from_names(names, 8)
    models = {
        "a": small_model(corpus, FCN, hidden_dim=300),
        "b": small_model(corpus, WaveNet, hidden_dim=128),
        "c": small_model(corpus, CompactWaveNet, hidden_dim=90),
    }
    page = report_of(models, corpus)
    assert running(page)
    assert len(page.encode()) <= report.LARGEST


def test_models_that_fit_run_in_order_of_test_loss(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leave_charts_out(monkeypatch)
    chosen = Mock(wraps=live.choose)
    monkeypatch.setattr(live, "choose", chosen)
    counts = drawn(KneserNey, CORPUS)
    hybrid = small_model(CORPUS, Hybrid)  # like the counts, but more confident
    hybrid.counts.tables = counts.tables
    torch.nn.init.constant_(hybrid.corrections[0].trust.bias[-1:], 1.3)
    models = {**MODELS, "d": counts, "e": hybrid}
    ranked = sorted(models.values(), key=lambda its: score(its, every_window(CORPUS))[0].mean())
    assert ranked[:2] == [hybrid, counts]
    titles = [its.title for its in ranked]
    page = report_of(models, CORPUS)
    assert running(page) == titles
    assert "The page cannot run" not in page
    assert len(page.encode()) <= report.LARGEST
    monkeypatch.setattr(report, "LARGEST", len(page.encode()) - 1)
    smaller = report_of(models, CORPUS)
    assert running(smaller) == titles, "with fewer bytes of each weight"
    assert len(smaller) < len(page) - 10_000
    monkeypatch.setattr(report, "LARGEST", len(smaller.encode()) - 1)
    fewer = report_of(models, CORPUS)
    assert len(fewer.encode()) < report.LARGEST
    assert running(fewer)[:2] == titles[:2]
    (missing,) = set(titles) - set(running(fewer))
    assert f"The page cannot run {findings.called(missing)}." in fewer
    monkeypatch.setattr(report, "LARGEST", 1000)
    nothing = report_of(models, CORPUS)
    assert running(nothing) == []
    assert '<ol id="generated"' in nothing
    assert chosen.call_count <= 10, "a page that is too large by a byte takes one more attempt"


def test_a_model_that_does_not_fit_makes_room_for_the_next() -> None:
    candidates = [live.Candidate(*able(model)) for model in MODELS.values()]
    cost = {}
    for candidate in candidates:
        alone = live.choose([candidate], 10**7)
        assert alone
        cost[candidate.weights.title] = len(json.dumps(alone["tensors"]))
    largest, *others = sorted(candidates, key=lambda its: -cost[its.weights.title])
    room = cost[largest.weights.title] - 1
    for other in others:
        chosen = live.choose([largest, other], room // 2)
        assert chosen
        assert [its["title"] for its in chosen["models"]] == [other.weights.title]


def test_a_tensor_shared_by_several_models_is_stored_once() -> None:
    mixture = drawn(Mixture, CORPUS)
    together = live.choose([live.Candidate(*able(mixture))], 10**7)
    members = [live.Candidate(*able(its.eval())) for its in mixture.members]
    every = live.choose([live.Candidate(*able(mixture)), *members], 10**7)
    assert together
    assert every
    assert len(every["models"]) == 6
    assert every["tensors"] == together["tensors"]
    one, *others = every["models"]
    for number, its in enumerate(others):
        for name, index in its["tensors"].items():
            assert one["tensors"][f"members.{number}.{name}"] == index
    used = {index for its in every["models"] for index in its["tensors"].values()}
    assert used == set(range(len(every["tensors"])))


def test_a_model_too_large_for_the_page_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = small_corpus(4)
    model = small_model(corpus, FCN, hidden_dim=15_000)
    page = report_of({"a": model}, corpus)
    assert running(page) == []
    assert 'id="live"' not in page
    assert page.count("<script") == 1
    assert "None of its models can run in this page." in page
    assert len(page.encode()) < MEBIBYTE
    assert live.choose([live.Candidate(*able(model, corpus))], 10**7)
    monkeypatch.setattr(live, "MOST", count_parameters(model) - 1)
    assert not live.choose([live.Candidate(*able(model, corpus))], 10**7), "it was packed"


# The generator runs a model only if it computes the right likelihoods.


def able(model: LanguageModel, corpus: Corpus = CORPUS) -> tuple[Weights, dict[str, float]]:
    """Return the parts of a `live.Candidate`: weights, and log-likelihoods by PyTorch."""
    likelihoods = name_log_likelihoods(model, corpus.vocabulary, NAMES, corpus.block_size)
    return weights_of(model, corpus), dict(zip(NAMES, likelihoods.tolist(), strict=True))


class WithGELU(WaveNet):
    """A WaveNet that a user has changed: the same tensors, a different function."""

    def forward(self, contexts: Tensor) -> Tensor:
        x = self.embedding(contexts)
        for linear in self.tree:
            N, P, C = x.shape
            x = torch.nn.functional.gelu(linear(x.view(N, P // 2, 2 * C)))
        logits: Tensor = self.output(x.squeeze(1))
        return logits


WithGELU.__module__ = WaveNet.__module__  # as if it were defined there


@pytest.mark.parametrize("block_size", [1, 2, 8])
@EVERY_KIND
def test_the_numpy_forward_pass_matches_pytorch(
    architecture: type[LanguageModel], options: dict[str, Any], block_size: int
) -> None:
    corpus = small_corpus(block_size)
    model = drawn(architecture, corpus, **options)
    torch.manual_seed(1)
    contexts = torch.randint(len(corpus.vocabulary), (50, block_size))
    contexts[:10, : block_size // 2] = END
    windows = every_window(corpus)
    contexts = torch.cat([contexts, windows.batch(slice(0, 50))[0]])
    weights, likelihoods = able(model, corpus)
    with torch.no_grad():
        expected = model.double()(contexts)
    found = live.logits(weights, contexts.numpy())
    assert expected.std() > 0.3
    np.testing.assert_allclose(found, expected, atol=1e-4)
    for name, its in likelihoods.items():
        assert live.log_likelihood(weights, name) == pytest.approx(its, abs=1e-4)
    assert live.runs(weights, likelihoods)


@pytest.mark.parametrize("width", [3, 2])
def test_floats_are_rounded_and_counts_are_exact(width: int) -> None:
    model = small_model(CORPUS, Hybrid)
    count(model.counts, every_window(CORPUS))
    widths = set()
    for name, tensor in weights_of(model, CORPUS).tensors.items():
        packed = live.Packed.of(name, tensor, width)
        assert len(packed.data) == packed.width * tensor.size
        if tensor.dtype.kind == "f":
            assert packed.width <= width
            steps = 256**width - 1
            off = np.abs(packed.values - tensor.ravel()).max()
            assert off <= 0.51 * (max(tensor.max(), 0) - min(tensor.min(), 0)) / steps
        else:
            widths.add(packed.width)
            np.testing.assert_array_equal(packed.values, tensor.ravel())
    assert widths == {1}
    large = np.array([3, 70_000, 256])
    packed = live.Packed.of("counts", large, width)
    assert packed.width == 3
    np.testing.assert_array_equal(packed.values, large)
    assert live.Packed.of("tokens", large[:0], width).data == b""


def test_a_model_that_computes_something_else_is_skipped() -> None:
    """A net with GELU instead of tanh has the same tensors."""
    before, plain = small_model(CORPUS, WaveNet), small_model(CORPUS, FCN, hidden_dim=40)
    changed = WithGELU(**before.hyperparameters)
    changed.load_state_dict(before.state_dict())
    assert live.runs(*able(before))
    weights, likelihoods = able(changed)
    assert weights.architecture == "wavenet"
    assert not live.runs(weights, likelihoods)
    described = live.choose(
        [live.Candidate(weights, likelihoods), live.Candidate(*able(plain))], 10**7
    )
    assert described
    assert [its["title"] for its in described["models"]] == [FCN.title]
    assert running(report_of({"a": changed, "b": plain}, CORPUS)) == [FCN.title]
    assert running(report_of({"a": changed}, CORPUS)) == []


def without(name: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda tensors: {key: its for key, its in tensors.items() if key != name}


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors | {"gate.weight": np.zeros((2, 2), "f4")},
        without("embedding.weight"),
        without("tree.1.bias"),
        without("tree.2.weight"),
        without("output.bias"),
        lambda tensors: tensors | {"tree.1.bias": tensors["tree.1.bias"][:-1]},
        lambda tensors: tensors | {"embedding.weight": tensors["embedding.weight"][1:]},
        lambda tensors: tensors | {"norms.1.weight": tensors["tree.1.bias"]},
    ],
)
def test_a_model_with_other_tensors_is_skipped(change: Callable[[Any], Any]) -> None:
    weights, likelihoods = able(MODELS["b"])
    assert live.runs(weights, likelihoods)
    changed = dataclasses.replace(weights, tensors=change(dict(weights.tensors)))
    assert not live.runs(changed, likelihoods)


def test_models_that_cannot_be_checked_are_skipped() -> None:
    for model in MODELS.values():
        weights, likelihoods = able(model)
        assert live.runs(weights, likelihoods)
        assert not live.runs(weights, {})
        assert not live.runs(dataclasses.replace(weights, architecture="gru"), likelihoods)
        nan = dict.fromkeys(likelihoods, float("nan"))
        assert not live.runs(weights, nan)
        off = {name: its + 0.01 for name, its in likelihoods.items()}
        assert not live.runs(weights, off)


class OneHot(LanguageModel):
    """A model without an embedding."""

    def __init__(self, vocab_size: int, block_size: int) -> None:
        super().__init__()
        self.output = torch.nn.Linear(vocab_size * block_size, vocab_size)
        self.vocab_size = vocab_size

    def forward(self, contexts: Tensor) -> Tensor:
        each = torch.nn.functional.one_hot(contexts, self.vocab_size)
        logits: Tensor = self.output(each.flatten(1).float())
        return logits


def test_a_model_without_an_embedding_has_no_map() -> None:
    fcn, other = small_model(CORPUS, FCN), small_model(CORPUS, OneHot)
    page = report_of({"a": fcn, "b": other}, CORPUS)
    assert page.count("Map of the character embedding") == 1
    page = report_of({"b": other}, CORPUS)
    assert "embedding-title" not in page
    assert 'href="#embedding"' not in page
    Elements(page)


def figure() -> Figure:
    return charts.calibration(
        {"A": pd.DataFrame({"confidence": [0.1, 0.9], "accuracy": [0.2, 0.8], "windows": 5})}
    )


def test_a_chart_uses_the_colors_and_font_of_the_page() -> None:
    text = charts.svg(figure(), "it")
    assert text.startswith("<svg ")
    assert text.endswith("</svg>")
    assert not re.search("#[0-9a-f]{6}", text)
    assert "font-family" not in text
    assert "DejaVu" not in text
    assert "var(--ink)" in text
    assert "var(--model-0)" in text
    for word in ("<style", "<metadata", "<!--", "width=", "height="):
        assert word not in re.sub("<(?:rect|use|image)[^>]*>", "", text)
    assert ">20%<" in text
    assert charts.svg(figure(), "it") == text
    assert set(re.findall(r'id="(\w+)', text)) == {"it"}


def test_every_color_of_the_charts_is_defined_for_light_and_for_dark(page: str) -> None:
    light, dark = page.split("prefers-color-scheme: dark")[:2]
    for name in set(re.findall(r"var\((--[\w-]+)\)", page)) - {"--its", "--share"}:
        assert f"{name}:" in light, name
        assert f"{name}:" in dark, name


def losses(**columns: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"position": [1, 2, 3], "windows": [50, 30, 29], **columns})


def test_means_of_few_windows_are_not_drawn() -> None:
    titles = {"a": "A", "b": "B"}
    table = losses(a=[3, 2, 1], b=[4, 3, 2])
    (axes,) = charts.loss_by(table, "position", titles, "x").axes
    assert [list(line.get_ydata()) for line in axes.lines] == [[3, 2], [4, 3]]
    rare = table.assign(windows=5)
    (axes,) = charts.loss_by(rare, "position", titles, "x").axes
    assert [list(line.get_ydata()) for line in axes.lines] == [[3, 2, 1], [4, 3, 2]]


def test_a_line_of_many_points_has_few_markers() -> None:
    def chart(points: int) -> str:
        loss = np.random.default_rng(1).random(points)
        table = pd.DataFrame({"position": np.arange(points), "windows": 50, "a": loss})
        return charts.svg(charts.loss_by(table, "position", {"a": "A"}, "x"), "it")

    ticks = chart(50).count("<use") - 50
    assert chart(100).count("<use") >= 100
    assert 50 <= chart(5000).count("<use") - ticks <= charts.MARKED + 10
    assert len(chart(5000)) < 300_000


def history(epochs: int, start: float = 3.0, lr: float = 0.1) -> pd.DataFrame:
    epoch = np.arange(1, epochs + 1)
    losses = {"train_loss": start / epoch**0.2, "val_loss": start / epoch**0.1}
    return pd.DataFrame({"epoch": epoch, **losses, "lr": lr})


def test_a_training_of_one_epoch_is_visible() -> None:
    for axes in charts.losses_and_rates({"A": history(1)}, ["A"]).axes:
        assert axes.lines
        assert all(line.get_marker() == "o" for line in axes.lines)


@pytest.mark.parametrize("epochs", [1, 2, 50])
def test_the_curves_show_the_histories_and_look_different(epochs: int) -> None:
    titles = [f"Net {number}" for number in range(len(figures.MODEL_COLORS))]
    histories = {t: history(epochs, start=4.0 + n, lr=0.1 / (n + 1)) for n, t in enumerate(titles)}
    figure = charts.losses_and_rates(histories, titles)
    losses, rates = figure.axes
    assert [text.get_text() for text in losses.get_legend().get_texts()] == titles
    looks = {(line.get_color(), line.get_linestyle()) for line in losses.lines}
    assert len(looks) == len(losses.lines) == 2 * len(titles)
    assert rates.get_yscale() == "log"
    for number, its in enumerate(histories.values()):
        val, train = losses.lines[2 * number : 2 * number + 2]
        for line, column in ((val, "val_loss"), (train, "train_loss"), (rates.lines[number], "lr")):
            assert list(line.get_xdata()) == list(its["epoch"])
            assert list(line.get_ydata()) == list(its[column])
    figure.canvas.draw()
    low, high = rates.get_xlim()
    ticks = [tick for tick in rates.get_xticks() if low <= tick <= high]
    assert ticks
    assert all(tick == round(tick) for tick in ticks)


def test_rates_that_coincide_are_all_visible() -> None:
    epochs = {"A": 5, "B": 5, "C": 3, "D": 5}
    histories = {title: history(n, lr=0.1 if title != "D" else 0.2) for title, n in epochs.items()}
    _, rates = charts.losses_and_rates(histories, list(epochs)).axes
    styles = [line.get_linestyle() for line in rates.lines]
    assert styles == ["-", "--", "--", "-"]
    dashes = {str(line._unscaled_dash_pattern) for line in rates.lines[:3]}
    assert len(dashes) == 3


def test_more_models_than_colors_are_all_drawn() -> None:
    titles = [f"Net {number}" for number in range(len(figures.MODEL_COLORS) + 2)]
    histories = {title: history(5) for title in titles}
    losses, rates = charts.losses_and_rates(histories, titles).axes
    assert len(losses.lines) == 2 * len(rates.lines) == 2 * len(titles)


def test_rows_are_ranked_and_nets_colored() -> None:
    metrics = {
        name: {"test_loss": loss, "test_loss_stderr": 0.01}
        for name, loss in {"Net": 2.0, "Counts": 1.9, "Other": 2.5}.items()
    }
    (axes,) = charts.side_by_side(metrics, ["Net", "Other"]).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["Other", "Net", "Counts"]
    colors = [container.lines[0].get_color() for container in axes.containers]
    assert colors == [figures.MODEL_COLORS[1], figures.MODEL_COLORS[0], figures.MUTED]


def test_only_settings_in_use_are_shown() -> None:
    assert set(in_use(Recipe(lr=0.1, batch_size=2, epochs=3))) == {
        *("lr", "batch_size", "epochs", "init", "optimizer", "scheduler", "keep")
    }
    told = in_use(
        Recipe(lr=0.1, batch_size=2, epochs=3, optimizer="muon", scheduler="step", average=0.9)
    )
    assert {"lr_every", "lr_factor", "beta1", "beta2", "average"} <= set(told)
    assert not {"momentum", "warmup", "patience"} & set(told)  # momentum is 0
    assert in_use(Recipe(lr=0.1, batch_size=2, epochs=3, clip_norm=1.0))["clip_norm"] == 1.0


TABLE = pd.DataFrame(
    {
        "actual": ["(end)", "(end)", "A", "A", "B"],
        "predicted": ["(end)", "A", "A", "B", "A"],
        "windows": [6, 2, 5, 5, 3],
    }
)


def test_the_worst_mistakes_have_their_fraction() -> None:
    rows = [(row["actual"], row["predicted"], row["share"]) for row in worst_mistakes(TABLE)]
    assert rows == [("A", "B", 0.5), ("B", "A", 1.0), ("(end)", "A", 0.25)]


def test_squares_show_the_fraction_of_each_mistake() -> None:
    grid = mistake_grid(TABLE)
    assert grid.labels == ["(end)", "A", "B"]
    assert {(cell.row, cell.column): cell.share for cell in grid.cells if not cell.right} == {
        (0, 1): 0.25,
        (1, 2): 0.5,
        (2, 1): 1.0,
    }
    assert {(cell.row, cell.column) for cell in grid.cells if cell.right} == {(0, 0), (1, 1)}


def test_the_calibration_error_weights_bins_by_their_windows() -> None:
    table = pd.DataFrame({"confidence": [0.5, 0.9], "accuracy": [0.4, 0.9], "windows": [30, 10]})
    assert calibration_error(table) == pytest.approx(0.075)


@given(levels=st.integers(0, 10), name=st.text("AB", min_size=1, max_size=30))
@few
def test_a_tree_joins_its_context_two_by_two(levels: int, name: str) -> None:
    size = 2**levels
    tree = Tree.over(size, name)
    assert [len(xs) for xs in tree.levels] == [2**level for level in range(levels, -1, -1)]
    assert "".join(tree.context) == ("." * size + name[:-1])[-size:]
    assert tree.target == name[-1]
    lines = list(tree.lines())
    assert len(lines) == 2 * size - 2
    for level, x, above in lines:
        assert above in tree.levels[level + 1]
        assert abs(x - above) == 2**level / 2
