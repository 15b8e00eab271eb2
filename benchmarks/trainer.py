"""Build and run the pipeline's trainings outside their stages."""

from collections.abc import Mapping
from pathlib import Path

from benchmarks import NAMES
from charlm.core.params import Params
from charlm.core.randomness import derive_seed, seeded
from charlm.data.corpus import Corpus
from charlm.data.splits import Part, split_windows
from charlm.data.windows import Windows, windows_by_part
from charlm.fast.devices import set_up
from charlm.models.base import LanguageModel
from charlm.models.compact import CompactWaveNet
from charlm.models.fcn import FCN
from charlm.models.hybrid import Hybrid
from charlm.models.wavenet import WaveNet
from charlm.training.counting import count
from charlm.training.distillation import taught
from charlm.training.initialization import initialize
from charlm.training.trainer import Trainer

ARCHITECTURES: dict[str, type[LanguageModel]] = {
    "fcn": FCN,
    "wavenet": WaveNet,
    "compact": CompactWaveNet,
    "hybrid": Hybrid,
}
COURSE_MODELS = {name: ARCHITECTURES[name].title for name in ("fcn", "wavenet")}
"""The titles of the course's models."""


def windows_of(params: Params, names: Path = NAMES) -> tuple[Corpus, dict[Part, Windows]]:
    """Read a list of names, one per line, and split its windows as the pipeline does."""
    lines = names.read_text(encoding="utf-8").split("\n")  # a name may contain spaces
    corpus = Corpus.from_names([name for name in lines if name], params.block_size)
    split = params.split
    seed = derive_seed(params.seed, "split")
    parts = split_windows(corpus, split.by, split.train, split.val, seed)
    return corpus, windows_by_part(corpus, parts)


def trainer_of(
    name: str,
    params: Params,
    corpus: Corpus,
    windows: Mapping[Part, Windows],
    device: str = "cpu",
    fast: bool = True,
    teacher: LanguageModel | None = None,
) -> Trainer:
    """Build a model and its Trainer with the parameters of its section; count for a hybrid.

    The model is distilled from `teacher` if there is one.
    """
    params = params.sized(len(windows[Part.TRAIN]), name)
    recipe = params.recipe(name)
    chosen = set_up(device, params.training.threads)
    with seeded(params.seed, "init"):
        model = ARCHITECTURES[name](
            vocab_size=len(corpus.vocabulary),
            block_size=corpus.block_size,
            **params.arguments(name),
        )
        initialize(model, recipe.init)
    if isinstance(model, Hybrid):
        count(model.counts, windows[Part.TRAIN])
    training_windows = windows[Part.TRAIN].to(chosen)
    if teacher is not None:
        vocab_size = len(corpus.vocabulary)
        training_windows = taught(training_windows, teacher.to(chosen), vocab_size, recipe.distill)
    return Trainer(
        model.to(chosen),
        training_windows,
        windows[Part.VAL].to(chosen),
        recipe,
        seed=params.seed,
        fast=fast,
    )


def trained(trainer: Trainer) -> LanguageModel:
    """Run all epochs and return the model with the weights that its recipe keeps."""
    for _ in trainer.run(trainer.recipe.epochs):
        pass
    model = trainer.model
    assert isinstance(model, LanguageModel)
    model.load_state_dict(trainer.weights())
    return model
