"""Mix all models, with the weights that minimize the validation loss."""

import numpy as np
import torch

from charlm.core.errors import InputError
from charlm.core.params import MIXED, blame
from charlm.core.randomness import seeded
from charlm.data import checkpoint
from charlm.data.corpus import load_corpus
from charlm.data.splits import Part, load_split
from charlm.data.windows import windows_by_part
from charlm.fast.devices import set_up
from charlm.fast.running import Runner, losses
from charlm.models.base import build
from charlm.models.mixture import Mixture
from charlm.training.mixing import mixture_weights
from stages import (
    DATASET,
    SPLIT,
    checkpoint_path,
    checkpoints,
    read_params,
    refuse_changed_inputs,
    run,
)


def main() -> None:
    params = read_params()
    for name in params.arguments(MIXED):
        with blame(f"{MIXED}.{name}"):
            raise InputError("the mixture has no parameters; remove this one")
    with blame("device"):
        device = set_up(params.device, threads=1)
    corpus = load_corpus(DATASET)
    val = windows_by_part(corpus, load_split(SPLIT, corpus))[Part.VAL].to(device)
    names = [name for name in params.models if name != MIXED]
    paths = checkpoints(params.models)
    models = {name: checkpoint.load_for(paths[name], corpus, build) for name in names}
    refuse_changed_inputs()  # again, after importing the code of the models
    probs = []
    for name, model in models.items():
        with seeded(params.seed, f"mix/{name}"):  # models can be random in evaluation, too
            probs.append(losses(Runner(model.to(device), params.fast), val).double().neg().exp())
    weights = mixture_weights(np.array(probs))
    pairs = zip(names, weights, strict=True)
    print(f"weights: {', '.join(f'{name} {weight:.3f}' for name, weight in pairs)}")
    chosen = [names[index] for index in np.flatnonzero(weights)]
    mixture = Mixture(
        len(corpus.vocabulary),
        corpus.block_size,
        [(name, models[name].hyperparameters) for name in chosen],
    )
    for member, name in zip(mixture.members, chosen, strict=True):
        member.load_state_dict(models[name].state_dict())
    mixture.weights = torch.from_numpy(weights[weights > 0]).float()
    checkpoint.save(checkpoint_path(MIXED), mixture, corpus.vocabulary)


if __name__ == "__main__":
    run(main)
