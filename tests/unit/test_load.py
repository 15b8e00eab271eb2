"""`charlm.load`: trained models from Python."""

import csv
import inspect
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import charlm
from charlm.core.errors import FileError, InputError
from charlm.core.pinning import KERNELS, ORDER
from charlm.data import checkpoint
from charlm.data.corpus import END
from charlm.models.base import LanguageModel
from charlm.sampling import conditions
from charlm.sampling.sampler import AT_ONCE
from charlm.trained import TrainedModel
from tests.conftest import Project
from tests.helpers import (
    ARCHITECTURES,
    DAMAGED,
    NAMES,
    assert_one_line,
    refused,
    run_python,
    small_corpus,
    small_model,
)

CORPUS = small_corpus()
VOCABULARY = CORPUS.vocabulary
MODEL = TrainedModel(small_model(CORPUS), VOCABULARY, CORPUS.block_size)


def ending_at_once() -> TrainedModel:
    """Return a model that ends a name as soon as it can."""
    model = small_model(CORPUS)
    with torch.no_grad():
        model.output.bias[END] = 1e9
    return TrainedModel(model, VOCABULARY, CORPUS.block_size)


@ARCHITECTURES
@pytest.mark.parametrize("kind", [str, Path])
def test_loading_needs_only_a_path(
    tmp_path: Path, architecture: type[LanguageModel], kind: type
) -> None:
    model = small_model(CORPUS, architecture)
    checkpoint.save(tmp_path / "model", model, VOCABULARY)
    loaded = charlm.load(kind(tmp_path / "model"))
    names = loaded.sample(prefix="MA", count=30)
    assert len(names) == 30
    assert all(name.startswith("MA") for name in names)
    assert names == TrainedModel(model, VOCABULARY, CORPUS.block_size).sample(prefix="MA", count=30)


@DAMAGED
def test_a_missing_or_damaged_file_is_named(tmp_path: Path, damage) -> None:
    path = tmp_path / "model"
    with pytest.raises(FileError, match="does not exist") as caught:
        charlm.load(path)
    assert_one_line(caught.value, [path])
    checkpoint.save(path, MODEL.model, VOCABULARY)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FileError) as caught:
        charlm.load(path)
    assert_one_line(caught.value, [path])


def test_loading_works_without_pinned_kernels(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "model", MODEL.model, VOCABULARY)
    code = "import charlm; print(charlm.load('model').sample(count=50))"
    printed = run_python(code, cwd=tmp_path, **dict.fromkeys([*KERNELS, *ORDER], ""))
    assert printed == f"{MODEL.sample(count=50)}\n"


def test_importing_charlm_does_not_import_torch() -> None:
    heavy = run_python("import charlm, sys; print({'torch', 'numpy', 'numba'} & {*sys.modules})")
    assert heavy == "set()\n"


@pytest.mark.parametrize("name", ["fcn", "wavenet", "compact"])
def test_names_and_likelihoods_match_those_of_the_sample_stage(
    template: Project, name: str
) -> None:
    model = charlm.load(template.path / f"data/checkpoints/{name}.safetensors")
    table = (template.path / f"data/samples/{name}.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(table.splitlines()))
    names = [row["name"] for row in rows]
    assert model.sample(count=20, seed=1) == names
    found = [score.log_likelihood for score in model.score(*names)]
    assert found == pytest.approx([float(row["log_likelihood"]) for row in rows], abs=1e-5)


def test_only_the_arguments_determine_the_names() -> None:
    torch.manual_seed(3)
    first = MODEL.sample(count=50)
    torch.manual_seed(4)
    state = torch.get_rng_state()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert MODEL.sample(count=50) == first
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), state)
    for other in ({"seed": 2}, {"temperature": 0.5}, {"max_length": 2}, {"prefix": "A"}):
        assert MODEL.sample(count=50, **other) != first


@pytest.mark.parametrize(
    "bad",
    [
        {"count": 0},
        {"count": 10**8 + 1},
        {"temperature": 0.0},
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"seed": -1},
        {"seed": 2**63},
        {"max_length": 0},
        {"max_length": 10**4 + 1},
        {"length": 0},
        {"length": -1},
        {"unlike": 0},
        {"unlike": 101},
    ],
    ids=str,
)
def test_an_argument_out_of_range_is_refused(bad: dict[str, float]) -> None:
    ((name, value),) = bad.items()
    calls = [MODEL.sample, MODEL.iterate]
    calls += [MODEL.most_probable] if name not in {"temperature", "seed"} else []
    for call in calls:
        with refused(f"{name} is {value}; give a"):
            call(**bad)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"length": (5, 3)}, "length is 5-3; give"),
        ({"length": (0, 3)}, "length is 0-3; give"),
        ({"length": 31}, "length 31 exceeds max_length (30); raise max_length"),
        ({"length": (3, 9), "max_length": 8}, "length 3-9 exceeds max_length (8)"),
        ({"length": 5, "prefix": "MAR", "suffix": "INE"}, "no name of 5 characters begins with"),
        ({"suffix": "日"}, "'日'"),
        ({"prefix": ["A", "日"]}, "'日'"),
        ({"prefix": []}, "the list of prefixes is empty"),
        ({"prefix": "ANNA", "max_length": 3}, "'ANNA' is longer than max_length (3)"),
        ({"unlike": 2}, "unlike needs names to compare with; pass them as novel_to"),
    ],
    ids=str,
)
def test_conditions_that_make_no_sense_are_refused(bad: dict[str, Any], message: str) -> None:
    for call in (MODEL.sample, MODEL.most_probable):
        with refused(message):
            call(**bad)


def test_iterating_gives_the_same_names_as_sampling() -> None:
    for options in ({"count": AT_ONCE + 3}, {"prefix": ["A", "B"]}, {"suffix": "A", "length": 3}):
        assert list(MODEL.iterate(**options)) == MODEL.sample(**options)


def test_iterating_samples_names_lazily() -> None:
    names = MODEL.iterate(count=10**8, prefix=["A", "BE"])
    assert [next(names) for _ in range(50)] == MODEL.sample(count=AT_ONCE, prefix=["A", "BE"])[:50]


def test_any_module_samples_and_scores_names() -> None:
    vocab_size = len(VOCABULARY)
    uniform = nn.Sequential(nn.Embedding(vocab_size, vocab_size), nn.Flatten(1))
    plain = nn.Sequential(uniform, nn.Linear(CORPUS.block_size * vocab_size, vocab_size))
    nn.init.zeros_(plain[1].weight)
    nn.init.zeros_(plain[1].bias)
    model = TrainedModel(plain, VOCABULARY, CORPUS.block_size)
    assert len(model.sample(prefix="MA", count=30)) == 30
    (score,) = model.score("ANNA")
    assert score.nats_per_character == pytest.approx(math.log(vocab_size), abs=1e-5)


def test_texts_are_converted_to_the_characters_of_the_model() -> None:
    assert MODEL.sample(prefix="jean–l") == MODEL.sample(prefix="JEAN-L")
    read = [score.name for score in MODEL.score("zoé", " Zoë\n", "d’arcy")]
    assert read == ["ZOÉ", "ZOE", "D'ARCY"]
    assert MODEL.sample(suffix="–l") == MODEL.sample(suffix="-L")
    assert MODEL.sample(prefix=["jean", "zoë"]) == MODEL.sample(prefix=["JEAN", "ZOE"])
    for call in (MODEL.fold, MODEL.score, lambda text: MODEL.sample(prefix=text)):
        with refused("'日'", f"the known characters are: {VOCABULARY.characters}"):
            call("日")


def test_novel_names_are_distinct_and_not_in_the_list() -> None:
    drawn = MODEL.sample(count=20_000, max_length=3)
    known = sorted(set(drawn))[::2]
    assert len(set(drawn)) < len(drawn)
    novel = MODEL.sample(count=2000, max_length=3, novel_to=known)
    assert len(novel) == len(set(novel)) == 2000
    assert not set(novel) & set(known)
    assert len(set(novel) & set(drawn)) > 500
    assert set(MODEL.sample(count=2000, max_length=3, novel_to=[])) & set(known)


def test_fewer_novel_names_are_the_first_ones_of_more() -> None:
    more = MODEL.sample(count=3000, novel_to=NAMES)
    for count in (1, 20, 1500):
        assert MODEL.sample(count=count, novel_to=iter(NAMES)) == more[:count]


def test_a_known_name_is_recognized_in_any_spelling() -> None:
    (name,) = set(MODEL.sample(prefix="ZOÉ", max_length=3))
    with refused("only 0 of 20 distinct novel names; raise the temperature"):
        MODEL.sample(prefix="ZOÉ", max_length=3, novel_to=["日本", " zoe\u0301\n"])
    assert name == "ZOÉ"


def test_the_error_for_too_few_novel_names_says_how_many_there_are() -> None:
    model = ending_at_once()
    assert model.sample(prefix="ANNA", count=1, novel_to=["BERTA"]) == ["ANNA"]
    with refused("only 1 of 2 distinct novel names; lower the count to 1, raise"):
        model.sample(prefix="ANNA", count=2, novel_to=["BERTA"])
    with refused("only 0 of 1 distinct novel names; raise the temperature or shorten the prefix"):
        model.sample(prefix="ANNA", count=1, novel_to=["ANNA"])


def test_the_number_of_novel_names_in_the_error_can_be_sampled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(conditions, "PATIENCE", 10_000)
    monkeypatch.setattr(conditions, "RARE", 10)
    with pytest.raises(InputError) as caught:
        MODEL.sample(count=10**6, max_length=2, novel_to=[])
    (count,) = re.findall(r"only ([\d,]+) of 1,000,000 distinct", str(caught.value))
    found = int(count.replace(",", ""))
    assert 100 < found <= len(VOCABULARY) ** 2
    assert len(set(MODEL.sample(count=found, max_length=2, novel_to=[]))) == found


def test_a_score_has_the_log_likelihood_of_each_character() -> None:
    (score,) = MODEL.score("RENÉE")
    tokens = VOCABULARY.encode("RENÉE")
    expected = []
    for place, token in enumerate([*tokens, END]):
        context = [END] * CORPUS.block_size + tokens[:place]
        logits = MODEL.model(torch.tensor([context[-CORPUS.block_size :]]))[0]
        expected.append(torch.log_softmax(logits.double(), dim=0)[token].item())
    assert score.name == "RENÉE"
    assert score.log_likelihoods == pytest.approx(expected, abs=1e-5)
    assert score.log_likelihood == pytest.approx(sum(expected), abs=1e-5)
    mean = -sum(expected) / 6
    assert score.nats_per_character == pytest.approx(mean, abs=1e-5)
    assert score.bits_per_character == pytest.approx(mean / math.log(2), abs=1e-5)
    assert score.perplexity == pytest.approx(math.exp(mean), rel=1e-5)


def test_names_are_scored_in_the_given_order_and_independently() -> None:
    scores = MODEL.score(*NAMES)
    assert [score.name for score in scores] == NAMES
    for name, score in zip(NAMES, scores, strict=True):
        (alone,) = MODEL.score(name)
        assert score.log_likelihoods == pytest.approx(alone.log_likelihoods, abs=1e-5)
    assert MODEL.score() == []


@pytest.mark.parametrize("name", ["", " ", "\n"])
def test_an_empty_name_has_no_score(name: str) -> None:
    with refused("a name is empty"):
        MODEL.score("ANNA", name)


def test_the_public_interface_is_documented_and_typed() -> None:
    sampling = [TrainedModel.sample, TrainedModel.iterate, TrainedModel.most_probable]
    methods = [TrainedModel.load, *sampling, TrainedModel.score, TrainedModel.fold]
    for function in (charlm.load, *methods):
        assert function.__doc__
        signature = inspect.signature(function)
        assert signature.return_annotation is not inspect.Signature.empty
        untyped = {n for n, p in signature.parameters.items() if p.annotation is p.empty}
        assert untyped <= {"self", "cls"}
