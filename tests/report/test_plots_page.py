"""The pages of `dvc plots` draw without a network, and say what is missing where they cannot."""

import csv
import re
from pathlib import Path

from dvc_render.vega import VegaRenderer
from playwright.sync_api import Browser, Page

from tests.browser import Pages
from tests.conftest import Project
from tests.pipeline.test_dvc_yaml import read_yaml

CURVES = "svg .mark-line path"


def page_of(ran: str, folder: Path) -> Path:
    file = folder / "dvc_plots/index.html"
    assert file.as_uri() in ran
    return file


def declared_plots(project: Project) -> dict[str, int]:
    """How many curves each plot of dvc.yaml has, by the id that DVC gives it; a picture has 0."""
    declared = read_yaml(project.path / "dvc.yaml")
    plots = {}
    for stage in declared["stages"].values():
        for entry in stage.get("plots", []):
            for path in entry:
                if Path(path).suffix in {".csv", ".png"}:
                    plots[re.sub(r"[/.]", "_", path)] = int(path.endswith(".csv"))
    for entry in declared["plots"]:
        for name, plot in entry.items():
            columns = plot["y"].values()
            plots[name] = sum(len(c) if isinstance(c, list) else 1 for c in columns)
    return plots


def drawn(page: Page, plots: dict[str, int], revisions: int = 1) -> None:
    """Every plot has the curves that it must, of some length, or shows its pictures.

    DVC draws a curve twice, as it is and smoothed, and puts the way to a file before its id.
    """
    assert set(plots.values()) > {0, 1, 2}
    for name, curves in plots.items():
        plot = page.locator(f"[id$='{name}']")
        if curves:
            plot.locator(CURVES).first.wait_for(state="attached")
            lengths = plot.locator(CURVES).evaluate_all("all => all.map(p => p.getTotalLength())")
            assert len(lengths) == 2 * curves * revisions, name
            assert min(lengths) > 50, name
        else:
            widths = plot.locator("img").evaluate_all("all => all.map(i => i.naturalWidth)")
            assert len(widths) == revisions, name
            assert min(widths) > 100, name


def test_show_and_diff_draw_every_plot_without_a_network(project: Project, pages: Pages) -> None:
    project.run("python", "-m", "pipeline.vega")
    assert project.git("status", "--porcelain") == "", "what set-up makes is not for git"
    plots = declared_plots(project)
    shown = project.dvc("plots", "show").text
    drawn(pages.open(page_of(shown, project.path)), plots)

    for file in (project.path / "plots").glob("*_history.csv"):
        text = file.read_text(encoding="utf-8")
        losses = [row["val_loss"] for row in csv.DictReader(text.splitlines())]
        file.write_text(text.replace(losses[-1], "9.000000"), encoding="utf-8")
    project.commit("Another run")
    compared = project.dvc("plots", "diff", "HEAD~1", "HEAD").text
    drawn(pages.open(page_of(compared, project.path)), plots, revisions=2)


def test_a_page_further_down_draws_too(project: Project, browser: Browser) -> None:
    project.run("python", "-m", "pipeline.vega")
    folder = project.path / "data/samples"
    shown = Project(folder).dvc("plots", "show").text
    pages = Pages(browser)
    drawn(pages.open(page_of(shown, folder)), declared_plots(project))
    pages.settle()
    pages.close()
    assert pages.requests == []


def test_before_set_up_a_page_takes_dvcs_scripts_from_the_network_or_says_what_to_do(
    project: Project, browser: Browser
) -> None:
    shown = project.dvc("plots", "show").text
    pages = Pages(browser)
    page = pages.open(page_of(shown, project.path))
    pages.settle()
    assert pages.requests == re.findall(r'src="(.*?)"', VegaRenderer.SCRIPTS)
    assert "make repro" in page.locator("#cannot-draw").inner_text()
    pages.close()
