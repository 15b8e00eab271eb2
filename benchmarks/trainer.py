"""The pipeline's training of one model, outside of its stage, for its steps to be timed."""

from collections.abc import Mapping

from charlm.corpus import Corpus
from charlm.devices import set_up
from charlm.models.fcn import FCN
from charlm.models.wavenet import WaveNet
from charlm.params import Params
from charlm.splits import Part
from charlm.training import Trainer
from charlm.windows import Windows


def trainer_of(
    name: str,
    params: Params,
    corpus: Corpus,
    windows: Mapping[Part, Windows],
    device: str = "cpu",
) -> Trainer:
    """A Trainer of a new model with the parameters of its section."""
    settings = params.model(name)
    chosen = set_up(device, params.threads)
    model = {"fcn": FCN, "wavenet": WaveNet}[name](
        vocab_size=len(corpus.vocabulary), block_size=corpus.block_size, **settings.hyperparameters
    )
    return Trainer(
        model.to(chosen),
        windows[Part.TRAIN].to(chosen),
        windows[Part.VAL].to(chosen),
        settings.recipe,
        seed=params.seed,
    )
