"""The report in a browser: it computes what PyTorch does, responds, and is accessible."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Locator, Page

from charlm.data.corpus import Corpus, printable
from charlm.data.windows import every_window
from charlm.models.base import LanguageModel, build
from charlm.models.compact import CompactWaveNet
from charlm.models.fcn import FCN
from charlm.models.mixture import Mixture
from charlm.models.wavenet import WaveNet
from charlm.report.page import LARGEST
from charlm.sampling.sampler import name_log_likelihoods
from tests.browser import Pages, violations
from tests.conftest import Project
from tests.helpers import NAMES, small_corpus, small_model
from tests.reports import EVERY_KIND, drawn, leave_charts_out, report_of

CORPUS = small_corpus(8)
MODELS = {
    kind.title: small_model(CORPUS, kind, hidden_dim=8) for kind in (CompactWaveNet, WaveNet, FCN)
}
WIDE, MIDDLE, NARROW = 1280, 800, 360


def write(folder: Path, *models: LanguageModel, corpus: Corpus = CORPUS) -> Path:
    file = folder / "report.html"
    named = dict(zip("abc", models, strict=False))
    file.write_text(report_of(named, corpus), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("report"), *MODELS.values())


def opened(pages: Pages, file: Path, **options: Any) -> Page:
    """Open the page of a report, and wait until its models are unpacked."""
    page = pages.open(file, **options)
    page.evaluate("ready")
    return page


def choose(page: Page, number: int) -> str:
    """Choose a model on the page, and return its title."""
    page.get_by_label("Model", exact=True).select_option(index=number)
    title: str = page.evaluate("model.title")
    return title


def test_every_model_can_be_chosen_and_matches_pytorch(pages: Pages, report: Path) -> None:
    page = opened(pages, report)
    contexts = every_window(CORPUS).batch(slice(0, 50))[0]
    titles, before = [], page.locator("#generated .name").all_inner_texts()
    for number in (1, 2, 0):
        titles.append(choose(page, number))
        names = page.locator("#generated .name").all_inner_texts()
        assert len(names) == 10
        assert names != before
        before = names
        with torch.no_grad():
            expected = MODELS[titles[-1]](contexts)
        found = torch.tensor(page.evaluate("contexts => contexts.map(logits)", contexts.tolist()))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
        highest = page.evaluate("Math.max(...probabilities([], 1))")
        assert percents(page)[0] == pytest.approx(100 * highest, abs=0.06)
    assert set(titles) == set(MODELS)
    page.get_by_label("Beginning").fill("Ж")
    names = page.locator("#generated .name").all_inner_texts()
    choose(page, 1)
    assert "does not know Ж" in page.locator("#complaint").inner_text()
    assert page.locator("#generated .name").all_inner_texts() == names


@EVERY_KIND
@pytest.mark.parametrize("block_size", [pytest.param(1, marks=pytest.mark.slow), 8])
def test_the_logits_match_pytorch(
    pages: Pages,
    tmp_path: Path,
    architecture: type[LanguageModel],
    options: dict[str, Any],
    block_size: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leave_charts_out(monkeypatch)
    corpus = small_corpus(block_size)
    model = drawn(architecture, corpus, **options)
    page = opened(pages, write(tmp_path, model, corpus=corpus))
    assert page.locator("#complaint").inner_text() == ""
    contexts = torch.randint(
        len(corpus.vocabulary), (50, block_size), generator=torch.Generator().manual_seed(1)
    )
    contexts = torch.cat([contexts, every_window(corpus).batch(slice(0, 100))[0]])
    with torch.no_grad():
        expected = model.double()(contexts).float()
    found = page.evaluate("contexts => contexts.map(logits)", contexts.tolist())
    assert expected.std() > 0.5
    assert len(expected.unique(dim=0)) > 10
    torch.testing.assert_close(torch.tensor(found), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("change", ["step *= 2", "step = NaN"])
def test_a_model_that_differs_from_the_pipeline_does_not_run(
    pages: Pages, report: Path, tmp_path: Path, change: str
) -> None:
    """The page is changed so that its weights differ from those of the pipeline."""
    text = report.read_text(encoding="utf-8")
    before = "let tensors = "
    assert text.count(before) == 1
    changed = tmp_path / "report.html"
    used = "Object.values(live.models[{}].tensors)"
    its = f"{used.format(0)}.find((i) => !{used.format(1)}.includes(i))"
    changed.write_text(text.replace(before, f"live.tensors[{its}].{change}; {before}"))
    page = opened(pages, changed)
    assert page.locator("#complaint").inner_text() == (
        "The model does not run here: its likelihoods differ from those in the pipeline."
    )
    for control in ("#prefix", "#temperature", "#generate"):
        assert page.locator(control).is_disabled()
    assert page.locator("#next li").count() == 0
    choose(page, 1)
    assert page.locator("#complaint").inner_text() == ""
    assert page.locator("#next li").count() == 12
    choose(page, 0)
    assert page.locator("#prefix").is_disabled()
    assert not page.locator("#next").is_visible()
    assert opened(pages, report).locator("#complaint").inner_text() == ""


def test_a_browser_that_cannot_unpack_the_model_says_so(pages: Pages, report: Path) -> None:
    page = pages.open(report)
    page.add_init_script("delete window.DecompressionStream")
    page.reload()
    page.evaluate("ready")
    assert page.locator("#complaint").inner_text() == (
        "The model does not run here: this browser cannot unpack it."
    )
    assert page.get_by_role("button", name="Generate ten names").is_disabled()
    assert page.get_by_label("Model", exact=True).is_disabled()
    assert page.locator("#generated .name").count() == 10


def test_the_largest_model_generates_ten_names_quickly(pages: Pages, tmp_path: Path) -> None:
    page = opened(pages, write(tmp_path, drawn(Mixture, CORPUS)))
    seconds = page.evaluate(
        """() => {
          const begun = performance.now();
          element("generate").click();
          return (performance.now() - begun) / 1000;
        }"""
    )
    assert page.locator("#generated .name").count() == 10
    assert seconds < 10, "far more than the second that it takes"


def test_the_likelihood_of_a_name_matches_pytorch(pages: Pages, report: Path) -> None:
    page = opened(pages, report)
    tokens = [CORPUS.vocabulary.encode(name) for name in NAMES]
    found = page.evaluate("names => names.map(likelihood)", tokens)
    model = MODELS[page.evaluate("model.title")]
    expected = name_log_likelihoods(model, CORPUS.vocabulary, NAMES, CORPUS.block_size)
    torch.testing.assert_close(torch.tensor(found).double(), expected, rtol=0, atol=1e-4)


def test_the_button_generates_names_with_the_typed_beginning(pages: Pages, report: Path) -> None:
    page = opened(pages, report)
    page.get_by_label("Beginning").fill("MAR")
    page.get_by_role("button", name="Generate ten names").click()
    names = page.locator("#generated .name").all_inner_texts()
    assert len(names) == 10
    assert all(name.startswith("MAR") for name in names)
    assert len(set(names)) > 1
    assert all(set(name) <= set(CORPUS.vocabulary.characters) for name in names)
    page.get_by_role("button", name="Generate ten names").click()
    assert page.locator("#generated .name").all_inner_texts() != names


def test_draws_follow_the_probabilities(pages: Pages, report: Path) -> None:
    page = opened(pages, report)
    shares = page.evaluate(
        """() => {
          const probability = probabilities([], 1);
          const count = probability.map(() => 0);
          for (let i = 0; i < 20000; i++) count[draw(probability)]++;
          return [count.map((c) => c / 20000), probability];
        }"""
    )
    drawn, expected = torch.tensor(shares)
    assert drawn[0] == expected[0] == 0  # no name is empty
    assert expected.sum() == pytest.approx(1)
    assert (drawn - expected).abs().max() < 0.02


def percents(page: Page) -> list[float]:
    texts = page.locator("#next .percent").all_inner_texts()
    return [float(text.strip("<% ")) for text in texts]


def test_the_next_letter_depends_on_the_typed_text_and_the_temperature(
    pages: Pages, report: Path
) -> None:
    page = opened(pages, report)
    at_first = percents(page)
    assert len(at_first) == 12
    assert at_first == sorted(at_first, reverse=True)
    page.get_by_label("Beginning").type("AN")
    assert percents(page) != at_first
    assert page.locator("#chances .letter").all_inner_texts() == ["A", "N", "(end)"]
    assert "log-likelihood −" in page.locator("#whole").inner_text()
    before = percents(page)
    page.get_by_label("Temperature").fill("0.3")
    assert page.locator("#degrees").inner_text() == "0.30"
    assert percents(page)[0] > before[0]


def test_a_letter_can_be_added_by_its_button(pages: Pages, report: Path) -> None:
    page = opened(pages, report)
    first = page.locator("#next button").first
    letter = first.inner_text()
    first.click()
    assert page.get_by_label("Beginning").input_value() == letter
    assert page.evaluate("document.activeElement.closest('#next') !== null")


def test_case_and_accents_are_converted_to_those_of_the_model(pages: Pages, report: Path) -> None:
    page = opened(pages, report)
    readings = {"mar": "MAR", "zoé": "ZOÉ", "renê": "RENE", "ZOE\u0301": "ZOÉ", "Ó.b": "Ó.B"}
    for typed, read in readings.items():
        page.get_by_label("Beginning").fill(typed)
        shown = page.locator("#chances .letter").all_inner_texts()
        assert shown == [*read, "(end)"]
        assert page.locator("#complaint").inner_text() == ""


def test_unknown_characters_are_reported(pages: Pages, report: Path) -> None:
    page = opened(pages, report)
    page.get_by_label("Beginning").fill("MЖ7")
    complaint = page.locator("#complaint").inner_text()
    assert "does not know Ж, 7" in complaint
    assert " ".join(CORPUS.vocabulary.characters) in complaint
    assert page.get_by_role("button", name="Generate ten names").is_disabled()
    page.get_by_label("Beginning").fill("M" * 31)
    assert page.locator("#complaint").inner_text() == "Type at most 30 characters."
    page.get_by_label("Beginning").fill("M")
    assert page.locator("#complaint").inner_text() == ""
    assert page.get_by_role("button", name="Generate ten names").is_enabled()


def test_the_keyboard_is_enough(pages: Pages, report: Path) -> None:
    page = opened(pages, report)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    reached = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id"))
        if "prefix" in reached:
            break
    page.keyboard.type("an")
    page.keyboard.press("Enter")
    assert page.locator("#generated .name").count() == 10
    page.keyboard.press("Tab")
    before = page.locator("#degrees").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#degrees").inner_text() > before
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "generate"
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert len(page.get_by_label("Beginning").input_value()) == 3


@pytest.mark.parametrize(
    ("width", "dark"), [(WIDE, False), (MIDDLE, False), (NARROW, True)], ids=str
)
def test_the_page_fits_its_window_and_is_accessible(
    pages: Pages, report: Path, width: int, dark: bool
) -> None:
    page = opened(pages, report, width=width, dark=dark)
    page.get_by_label("Beginning").fill("AN")
    page.get_by_role("button", name="Generate ten names").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    drawn = page.locator("figure svg")
    assert drawn.count() >= 12
    for box in (drawn.nth(i).bounding_box() for i in range(drawn.count())):
        assert box is not None
        assert box["width"] > 200
        assert box["height"] > 100
    ink, paper = (
        page.evaluate(f"getComputedStyle(document.body).{name}")
        for name in ("color", "backgroundColor")
    )
    assert (sum(map(int, paper[4:-1].split(", "))) < 200) == dark
    assert page.evaluate("getComputedStyle(document.querySelector('svg text')).fill") == ink
    assert violations(page) == []


def test_the_page_can_be_read_without_javascript(pages: Pages, report: Path) -> None:
    page = pages.open(report, java_script_enabled=False)
    assert page.get_by_text("To generate more names here, turn on JavaScript.").is_visible()
    assert page.locator("#generated .name").count() == 10
    assert page.locator("#generated").is_visible()
    for control in ("form", "#predictions", "#typed", ".sort"):
        assert page.locator(control).filter(visible=True).count() == 0, control
    assert page.locator("tbody tr").count() > 20


def column(page: Page, section: str, number: int) -> list[str]:
    rows = page.locator(f"#{section} table").first.locator("tbody tr")
    return [row.locator("th, td").nth(number).inner_text() for row in rows.all()]


def test_every_table_sorts_by_every_column(pages: Pages, report: Path) -> None:
    page = opened(pages, report)
    tables = page.locator("table")
    assert tables.count() >= 9
    for table in tables.all():
        headings = table.locator("thead th")
        assert headings.count() > 1
        assert table.locator("thead th button").count() == headings.count()
        before = sorted(table.locator("tbody tr").all_inner_texts())
        headings.last.locator("button").click()
        assert headings.last.get_attribute("aria-sort") == "ascending"
        assert table.locator("[aria-sort]").count() == 1
        assert sorted(table.locator("tbody tr").all_inner_texts()) == before
    assert violations(page) == []


def test_numbers_are_sorted_as_numbers_and_text_as_text(pages: Pages, report: Path) -> None:
    page = opened(pages, report)
    table = page.locator("#comparison table")
    loss, size = (table.get_by_role("button", name=name) for name in ("test loss", "parameters"))
    at_first = column(page, "comparison", 0)
    assert table.locator("[aria-sort=ascending]").inner_text() == "test loss"
    size.click()
    sizes = [int(text.replace(",", "")) for text in column(page, "comparison", 5)]
    assert sizes == sorted(sizes)
    size.focus()
    page.keyboard.press("Enter")
    assert [int(text.replace(",", "")) for text in column(page, "comparison", 5)] == sizes[::-1]
    loss.click()
    assert column(page, "comparison", 0) == at_first
    table.get_by_role("button", name="Model").click()
    titles = column(page, "comparison", 0)
    assert titles == sorted(titles) != at_first
    likelihoods = page.locator("#samples table").first
    likelihoods.get_by_role("button", name="ln p").click()
    found = [float(text.replace("−", "-")) for text in column(page, "samples", 1)]
    assert found == sorted(found)


def test_equal_rows_keep_their_order_and_empty_cells_come_last(pages: Pages, report: Path) -> None:
    page = opened(pages, report)
    page.evaluate(
        """() => {
          const rows = [["b", "2.5 ± 0.3"], ["a", ""], ["f", "1,234"], ["c", "10%"],
                        ["d", "2.5"], ["e", "none"], ["g", "−3"]];
          const body = document.querySelector("#calibration tbody");
          body.innerHTML = rows.map((r) => `<tr><td>${r[0]}</td><td>${r[1]}</td></tr>`).join("");
        }"""
    )
    error = page.locator("#calibration").get_by_role("button", name="error")
    error.click()
    assert "".join(column(page, "calibration", 0)) == "gbdcfea"
    error.click()
    assert "".join(column(page, "calibration", 0)) == "efcbdga"


def test_the_page_prints_black_on_white_without_controls(pages: Pages, report: Path) -> None:
    page = opened(pages, report, width=700, dark=True)
    page.get_by_label("Beginning").fill("AN")
    page.emulate_media(media="print")
    style = "getComputedStyle(document.body)"
    assert page.evaluate(f"{style}.color") == "rgb(0, 0, 0)"
    assert page.evaluate(f"{style}.backgroundColor") == "rgb(255, 255, 255)"
    for part in ("nav", "form", "#complaint", "#predictions", "#typed", ".screen", ".skip"):
        assert page.locator(part).filter(visible=True).count() == 0, part
    assert page.locator("#generated .name").first.is_visible()
    for part in ("svg text", "td", "h2", ".note"):
        assert page.locator(part).filter(visible=True).count() > 0
    assert page.evaluate("getComputedStyle(document.querySelector('svg text')).fill") == (
        "rgb(0, 0, 0)"
    )
    assert (
        page.evaluate(
            "getComputedStyle(document.querySelector('.swatch')).getPropertyValue('--model-0')"
        ).strip()
        == "#1f6fb4"
    )
    for format in ("A4", "Letter"):
        assert page.pdf(format=format).startswith(b"%PDF")
    assert page.evaluate("document.documentElement.scrollWidth") <= 700
    for table in page.locator(".scroll").all():
        assert table.evaluate("box => box.scrollWidth <= box.clientWidth")


LONG = ["FRANÇOIS-VEGLAINE", "ABDERAHAMMANULLETTE", "MARIE-ANTOINETTE-ELISABETH-X"]


@pytest.mark.parametrize("width", [1100, MIDDLE, 400])
def test_long_names_stay_in_their_column(
    pages: Pages, tmp_path: Path, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_charts_out(monkeypatch)
    corpus = Corpus.from_names([*LONG, *(name[::-1] for name in LONG)], 8)
    page = opened(pages, write(tmp_path, small_model(corpus, FCN), corpus=corpus), width=width)
    page.evaluate(
        "names => document.querySelectorAll('#samples bdi, #generated bdi')"
        ".forEach((it, i) => { it.textContent = names[i % names.length]; })",
        LONG,
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for box in page.locator("#samples .scroll").all():
        assert box.evaluate("box => box.scrollWidth <= box.clientWidth")


def test_the_report_of_the_pipeline_works(pages: Pages, template: Project) -> None:
    """It computes the logits of the checkpoint that the pipeline wrote."""
    from charlm.data import checkpoint

    file = template.path / "plots/report.html"
    assert file.stat().st_size <= LARGEST
    page = opened(pages, file)
    metrics = json.loads((template.path / "metrics/evaluation.json").read_text(encoding="utf-8"))
    best = min(metrics, key=lambda name: metrics[name]["test_loss"])
    loaded = checkpoint.load(template.path / f"data/checkpoints/{best}.safetensors", build)
    assert page.evaluate("model.title") == loaded.model.title
    contexts = torch.randint(len(loaded.vocabulary), (50, 8))
    with torch.no_grad():
        expected = loaded.model(contexts)
    found = torch.tensor(page.evaluate("contexts => contexts.map(logits)", contexts.tolist()))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    page.get_by_role("button", name="Generate ten names").click()
    assert page.locator("#generated .name").count() == 10
    assert violations(page) == []


def test_unreadable_input_clears_earlier_results(pages: Pages, report: Path) -> None:
    page = opened(pages, report)
    page.get_by_label("Beginning").fill("AN")
    assert page.locator("#chances li").count() == 3
    page.get_by_label("Beginning").fill("A \N{SLIGHTLY SMILING FACE}")
    assert "does not know ␣, \N{SLIGHTLY SMILING FACE}." in page.locator("#complaint").inner_text()
    for answer in ("#next li", "#chances li"):
        assert page.locator(answer).count() == 0
    assert page.locator("#whole").inner_text() == ""


MIXED = ["علي", "نور", "می\u200cخواهم", "יוסף", "שרה 7", "ALI", "NOUR", "X Y"]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report on names in both writing directions."""
    corpus = Corpus.from_names(MIXED, 4)
    models = small_model(corpus, CompactWaveNet), small_model(corpus, FCN)
    return write(tmp_path_factory.mktemp("mixed"), *models, corpus=corpus)


PLACES = """line => {
  const walker = document.createTreeWalker(line, NodeFilter.SHOW_TEXT);
  const places = [];
  while (walker.nextNode()) {
    const text = walker.currentNode;
    for (const found of text.data.matchAll(/[^\\s]+/g)) {
      const range = document.createRange();
      range.setStart(text, found.index);
      range.setEnd(text, found.index + found[0].length);
      const { left, right, top } = range.getBoundingClientRect();
      places.push([found[0], (left + right) / 2, Math.round(top / 20)]);
    }
  }
  return places;
}"""
"""Returns each word of a line, with its horizontal center and its row."""


def in_order(line: Locator) -> bool:
    """Return whether the words of a line run from left to right in the order of the text."""
    places = [(row, middle) for _, middle, row in line.evaluate(PLACES)]
    return places == sorted(places)


def test_a_line_in_both_directions_keeps_the_order_of_its_parts(pages: Pages, mixed: Path) -> None:
    page = opened(pages, mixed)
    lines = page.locator("#samples td:not(.number)").filter(has=page.locator("bdi"))
    nearest = lines.locator("bdi").all_inner_texts()
    assert {"علي", "نور", "יוסף"} & set(nearest)
    for line, name in zip(lines.all(), nearest, strict=True):
        if " " not in name:
            assert in_order(line), line.inner_text()
    page.get_by_label("Beginning").fill("ب9پЖ")
    complaint = page.locator("#complaint")
    assert complaint.inner_text().startswith("The model does not know ب, 9, پ, Ж. It knows: ␣ 7 A")
    assert in_order(complaint)
    page.add_style_tag(content="bdi { unicode-bidi: normal }")
    assert not in_order(complaint), "without isolation they change places"


def test_a_name_is_typed_and_shown_in_its_own_direction(pages: Pages, mixed: Path) -> None:
    page = opened(pages, mixed)
    field = page.get_by_label("Beginning")
    for typed, direction in (("علي", "rtl"), ("ALI", "ltr")):
        field.fill(typed)
        assert field.evaluate("input => getComputedStyle(input).direction") == direction
        boxes = [cell.bounding_box() for cell in page.locator("#chances li").all()]
        places = [box["x"] for box in boxes if box]
        assert places == sorted(places, reverse=direction == "rtl")
    page.get_by_role("button", name="Generate ten names").click()
    assert page.locator("#generated bdi").count() == 10


def test_the_page_labels_characters_like_the_figures(pages: Pages, mixed: Path) -> None:
    page = opened(pages, mixed)
    planes = [*range(0x20000), *range(0xE0000, 0xE1000)]
    assigned = [chr(n) for n in planes if unicodedata.category(chr(n)) not in ("Cn", "Cs")]
    found = page.evaluate("characters => characters.map(printable)", assigned)
    expected = [printable(character) for character in assigned]
    assert [pair for pair in zip(found, expected, strict=True) if pair[0] != pair[1]] == []


def test_no_label_of_the_tree_is_cut_off(
    pages: Pages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_charts_out(monkeypatch)
    for block_size in (1, 2, 8, 32):
        corpus = small_corpus(block_size)
        page = opened(pages, write(tmp_path, small_model(corpus, WaveNet), corpus=corpus))
        assert page.evaluate(
            """() => {
              const tree = document.querySelector(".tree");
              const edge = tree.getBoundingClientRect().right;
              const labels = [...tree.querySelectorAll("text")];
              return labels.every((label) => label.getBoundingClientRect().right <= edge);
            }"""
        )
