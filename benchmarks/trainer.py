"""The pipeline's training of one model, outside of its stage, for its steps to be timed."""

from collections.abc import Mapping

from charlm.corpus import Corpus, Windows
from charlm.devices import set_up
from charlm.models.fcn import FCN
from charlm.models.wavenet import WaveNet
from charlm.params import Params
from charlm.splits import Part
from charlm.training import Trainer


def trainer_of(
    name: str, params: Params, corpus: Corpus, windows: Mapping[Part, Windows]
) -> Trainer:
    """A Trainer of a new model, on the CPU, with the parameters of its section."""
    settings = params.model(name)
    set_up("cpu", params.threads)
    model = {"fcn": FCN, "wavenet": WaveNet}[name](
        vocab_size=len(corpus.vocabulary), block_size=corpus.block_size, **settings.hyperparameters
    )
    return Trainer(
        model,
        windows[Part.TRAIN],
        windows[Part.VAL],
        lr=settings.lr,
        batch_size=params.batch_size,
        seed=params.seed,
    )
