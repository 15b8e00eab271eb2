"""The pages of `dvc plots` work without a network, and say what is missing if they cannot draw."""

import csv
import json
import re
from pathlib import Path

import pandas as pd
from dvc_render.vega import VegaRenderer
from playwright.sync_api import Browser, Page

from charlm.report.figures import COUNT_MODELS
from tests.browser import Pages
from tests.conftest import MODELS, TRAINED, Project
from tests.pipeline.test_dvc_yaml import read_yaml

MARKS = "svg .mark-line path, svg .mark-rect path"
HIGHEST = 2880
"""The greatest height in pixels of a page that is 1280 wide: a third of its former height."""

HIDDEN = "plots_figures_losses_png"
"""The figure of all losses; the page itself draws its curves."""


def page_of(ran: str, folder: Path) -> Path:
    file = folder / "dvc_plots/index.html"
    assert file.as_uri() in ran
    return file


def expected(project: Project) -> dict[str, int]:
    """Return the number of curves or bars of each plot, by DVC's ID for it; 0 for an image."""
    plots = {f"plots_history_{model}_csv": 3 for model in TRAINED}  # two losses, learning rate
    plots["plots_orders_csv"] = 1
    plots["plots_evaluation_models_csv"] = len([*MODELS, *COUNT_MODELS])
    plots["plots_evaluation_calibration_csv"] = len(MODELS)
    for place in ("position", "length"):
        plots[f"plots_evaluation_loss_by_{place}_csv"] = len(MODELS)
    for file in (project.path / "plots/figures").iterdir():
        plots[f"plots_figures_{file.stem}_png"] = 0
    return plots


def drawn(page: Page, plots: dict[str, int], revisions: int = 1) -> None:
    """Check that every plot has its curves, each of some length, or shows its images.

    The ID that DVC gives a plot starts with the path of the file.
    """
    for name, curves in plots.items():
        plot = page.locator(f"[id$='{name}']")
        if name == HIDDEN:
            assert not plot.is_visible()
        elif curves:
            plot.locator(MARKS).first.wait_for(state="attached")
            lengths = plot.locator(MARKS).evaluate_all("all => all.map(p => p.getTotalLength())")
            assert len(lengths) == curves * revisions, name
            assert min(lengths) > 50, name
        else:
            widths = plot.locator("img").evaluate_all("all => all.map(i => i.naturalWidth)")
            assert len(widths) == revisions, name
            assert min(widths) > 100, name
    shown = page.locator("body > div").evaluate_all("all => all.map(d => d.id)")
    assert len(shown) == len(plots), "nothing is drawn twice"


def test_no_file_is_drawn_twice(project: Project) -> None:
    declared = read_yaml(project.path / "dvc.yaml")
    assert "plots" not in declared, "a definition there would draw a file that its stage draws"
    shown = json.loads(project.dvc("plots", "show", "--json").text)
    assert "errors" not in shown
    assert {re.sub(r"[/.]", "_", name) for name in shown["data"]} == set(expected(project))


MORE = """
  train_more:
    cmd: cp plots/history/fcn.csv plots/history/more.csv
    deps: [plots/history/fcn.csv]
    plots:
      - plots/history/more.csv:
          {cache: false, template: history, title: More, x: epoch, y: val_loss}

artifacts:"""


def test_a_new_model_is_drawn_without_other_changes(project: Project, pages: Pages) -> None:
    project.run("python", "-m", "pipeline.vega")
    file = project.path / "dvc.yaml"
    file.write_text(file.read_text(encoding="utf-8").replace("\nartifacts:", MORE), "utf-8")
    project.dvc("repro", "train_more")
    tables = (project.path / "plots/evaluation").glob("*[nh].csv")  # drawn as curves
    for table in tables:
        rows = pd.read_csv(table)
        its = rows[rows["model"] == "fcn"].assign(model="more")
        pd.concat([rows, its]).to_csv(table, index=False)
    page = pages.open(page_of(project.dvc("plots", "show").text, project.path))
    plots = expected(project)
    more = {name: n + 1 for name, n in plots.items() if re.search("calibration|loss_by_[pl]", name)}
    more.pop("plots_figures_loss_by_parameters_png")
    drawn(page, plots | more | {"plots_history_more_csv": 3})


def test_show_and_diff_draw_every_plot_without_a_network(project: Project, pages: Pages) -> None:
    project.run("python", "-m", "pipeline.vega")
    assert project.git("status", "--porcelain") == "", "what setup makes is not for git"
    plots = expected(project)
    shown = project.dvc("plots", "show").text
    page = pages.open(page_of(shown, project.path), 1280, 800)
    drawn(page, plots)
    assert page.evaluate("document.documentElement.scrollHeight") <= HIGHEST
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280

    for file in (project.path / "plots/history").glob("*.csv"):
        text = file.read_text(encoding="utf-8")
        losses = [row["val_loss"] for row in csv.DictReader(text.splitlines())]
        file.write_text(text.replace(losses[-1], "9.000000"), encoding="utf-8")
    project.commit("Another run")
    compared = project.dvc("plots", "diff", "HEAD~1", "HEAD").text
    drawn(pages.open(page_of(compared, project.path)), plots, revisions=2)


def test_a_page_in_a_subfolder_draws_too(project: Project, browser: Browser) -> None:
    project.run("python", "-m", "pipeline.vega")
    folder = project.path / "data/samples"
    shown = Project(folder).dvc("plots", "show").text
    pages = Pages(browser)
    drawn(pages.open(page_of(shown, folder)), expected(project))
    pages.settle()
    pages.close()
    assert pages.requests == []


def test_before_setup_a_page_needs_the_network_or_says_what_to_do(
    project: Project, browser: Browser
) -> None:
    shown = project.dvc("plots", "show").text
    pages = Pages(browser)
    page = pages.open(page_of(shown, project.path))
    pages.settle()
    assert pages.requests == re.findall(r'src="(.*?)"', VegaRenderer.SCRIPTS)
    assert "make repro" in page.locator("#cannot-draw").inner_text()
    pages.close()
