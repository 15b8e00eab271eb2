"""What the training stages have in common: all but the model."""

import os
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from charlm import checkpoint
from charlm.corpus import load_corpus
from charlm.devices import set_up
from charlm.files import write_csv
from charlm.models.base import LanguageModel
from charlm.params import blame, load_params
from charlm.progress import Progress
from charlm.randomness import seeded
from charlm.resume import ResumeFile
from charlm.splits import Part, load_split
from charlm.training import Epoch, Trainer
from stages import DATASET, SPLIT, checkpoint_path, history_path

# DVC_ROOT stays that of the user's own checkout where an experiment runs in a temporary copy.
RESUME = Path(os.environ.get("DVC_ROOT", ".")) / ".resume"


def train(name: str, architecture: type[LanguageModel]) -> None:
    """Train the model that `params.yaml` describes under `name`.

    Writes its checkpoint at the end and its history after each epoch.
    """
    params = load_params()
    settings = params.model(name)
    with blame("device"):
        device = set_up(params.device, params.threads)
    corpus = load_corpus(DATASET)
    parts = load_split(SPLIT, corpus)
    with seeded(params.seed, "init"):
        model = architecture(
            vocab_size=len(corpus.vocabulary),
            block_size=corpus.block_size,
            **settings.hyperparameters,
        )
    windows = corpus.windows()
    trainer = Trainer(
        model.to(device),
        windows.where(parts == Part.TRAIN).to(device),
        windows.where(parts == Part.VAL).to(device),
        lr=settings.lr,
        batch_size=params.batch_size,
        seed=params.seed,
    )
    decisive = asdict(settings) | params.model_dump(include={"batch_size", "seed", "threads"})
    decisive["device"] = device.type
    resume = ResumeFile(RESUME, name, decisive, data=[DATASET, SPLIT])
    if state := resume.load():
        trainer.load_state_dict(state)
        write_history(name, trainer.history)
        print(f"{model.title}: going on after epoch {len(trainer.history)}", flush=True)
    done = len(trainer.history)
    with Progress(model.title, settings.epochs, trainer.batches_per_epoch, done) as progress:
        for epoch in trainer.run(settings.epochs, progress.batches):
            progress.epoch(epoch)
            write_history(name, trainer.history)
            resume.save(trainer.state_dict())
    checkpoint.save(checkpoint_path(name), model, corpus.vocabulary)
    resume.remove()


def write_history(name: str, history: list[Epoch]) -> None:
    write_csv(history_path(name), pd.DataFrame(map(asdict, history)))
