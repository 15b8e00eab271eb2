"""docs/python.md: its code runs as written, and prints what the page shows."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from charlm.data import checkpoint
from charlm.data.corpus import Corpus
from charlm.names.reading import read_names
from tests.conftest import ROOT, copy_checkout
from tests.helpers import printed_by, small_model

PAGE = (ROOT / "docs/python.md").read_text(encoding="utf-8")
BLOCK = re.compile(
    r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", flags=re.MULTILINE | re.DOTALL
)


def run(page: str) -> Iterator[tuple[str, str, str]]:
    """Run the code of a page in one namespace; yield each block, its output, and what is shown."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    for code, shown in BLOCK.findall(page):
        yield code, printed_by(code, "docs/python.md", namespace), shown


def test_every_block_of_the_page_is_found() -> None:
    assert len(BLOCK.findall(PAGE)) == PAGE.count("```python") == 7
    assert sum(bool(shown) for _, shown in BLOCK.findall(PAGE)) == PAGE.count("```text") == 5


def test_the_code_of_the_page_runs_and_prints_what_it_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An untrained model stands in for the checkpoint, so the next test compares its output."""
    (tmp_path / "data").mkdir()
    shutil.copy(ROOT / "data/prenoms.txt", tmp_path / "data")
    corpus = Corpus.from_names(read_names(ROOT / "data/prenoms.txt"), block_size=8)
    untrained = small_model(corpus)
    checkpoint.save(tmp_path / "data/checkpoints/fcn.safetensors", untrained, corpus.vocabulary)
    monkeypatch.chdir(tmp_path)
    for code, printed, shown in run(PAGE):
        if "charlm.load" in code:
            assert printed.count("\n") == shown.count("\n")
        else:
            assert printed == shown


@pytest.mark.slow
def test_the_code_of_the_page_prints_what_it_shows_for_a_trained_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = copy_checkout(tmp_path)
    for stage in ("build_dataset", "split", "train_fcn"):
        project.stage(stage)
    monkeypatch.chdir(project.path)
    for _, printed, shown in run(PAGE):
        assert printed == shown
