"""What the training stages have in common: all but the model."""

import inspect
import os
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pandas as pd

from charlm.core.errors import InputError
from charlm.core.files import restoring, write_csv
from charlm.core.params import blame, load_params
from charlm.core.randomness import seeded
from charlm.data import checkpoint
from charlm.data.corpus import load_corpus
from charlm.data.splits import Part, load_split
from charlm.data.windows import windows_by_part
from charlm.fast.devices import refuse_if_too_large, set_up, without_memory
from charlm.models.base import LanguageModel
from charlm.training.distributed import join, launched
from charlm.training.initialization import initialise
from charlm.training.processes import run_in_processes
from charlm.training.progress import Progress
from charlm.training.resume import ResumeFile
from charlm.training.trainer import Epoch, Trainer
from stages import DATASET, SPLIT, checkpoint_path, history_path, ignore_interrupts

# DVC_ROOT stays that of the user's own checkout where an experiment runs in a temporary copy.
RESUME = Path(os.environ.get("DVC_ROOT", ".")) / ".resume"
SAVE_EVERY = 1000
"""Batches after which a training is kept for being resumed, where its epochs are longer."""


def train(name: str, architecture: type[LanguageModel]) -> None:
    """Train the model that `params.yaml` describes under `name`.

    Writes its history after each epoch, to be looked at meanwhile, and its checkpoint at
    the end; if it comes to no end, the earlier history stays, as the checkpoint does.
    """
    params = load_params()
    settings = params.model(name)
    if params.processes > 1 and not launched():
        run_in_processes(f"stages.train_{name}", params.processes)
        return
    with blame("device"):
        device = set_up(params.device, params.threads)
    with blame("processes"):
        group = join(params.processes, device)
    corpus = load_corpus(DATASET)
    windows = windows_by_part(corpus, load_split(SPLIT, corpus))
    build = partial(
        architecture,
        vocab_size=len(corpus.vocabulary),
        block_size=corpus.block_size,
        **settings.hyperparameters,
    )
    with blame(name), without_memory():
        refuse_if_too_large(size(build))
    with seeded(params.seed, "init"):
        model = build()
        initialise(model, settings.recipe.init)
    trainer = Trainer(
        model.to(device),
        windows[Part.TRAIN].to(device),
        windows[Part.VAL].to(device),
        settings.recipe,
        seed=params.seed,
        group=group,
    )
    shared = {"seed", "threads", "processes"}
    decisive = asdict(settings) | params.model_dump(include=shared) | {"device": device.type}
    resume = ResumeFile(RESUME, name, decisive, data=[DATASET, SPLIT])
    if state := group.from_first(resume.load() if group.first else None):
        trainer.load_state_dict(state)
    epochs = settings.recipe.epochs
    diverging = blame(f"{name}.lr" if getattr(params, name).lr else "lr")
    if not group.first:  # the first process writes and reports for all
        with diverging:  # which any of them may be the first to see
            _train_along(trainer, epochs)
        return
    if state:
        print(f"{model.title}: going on after {_so_far(trainer)}", flush=True)
    progress = Progress(
        model.title,
        epochs,
        trainer.batches_per_epoch,
        epochs_done=len(trainer.history),
        batches_done=trainer.batches_done,
    )

    def on_batches(count: int) -> None:
        progress.batches(count)
        if trainer.batches_done % SAVE_EVERY == 0:
            resume.save(trainer.state_dict())

    with restoring(history_path(name)):
        if trainer.history:
            write_history(name, trainer.history)
        with progress, diverging:
            for epoch in trainer.run(epochs, on_batches):
                progress.epoch(epoch)
                write_history(name, trainer.history)
                resume.save(trainer.state_dict())
        done, best = len(trainer.history), trainer.best_epoch
        if done < epochs:
            print(f"{model.title}: stopped after epoch {done}, the best was {best}", flush=True)
        model.load_state_dict(trainer.weights())
        checkpoint.save(checkpoint_path(name), model, corpus.vocabulary)
    ignore_interrupts()  # or a training that is done would be neither recorded nor resumed
    resume.remove()


def size(build: "partial[LanguageModel]") -> int:
    """How many parameters the model has that is built of a section.

    Raises InputError where the section, which `charlm.core.params` may have no class for, has other
    keys than the constructor takes, or a value that it refuses.
    """
    takes, given = inspect.signature(build.func).parameters, build.keywords
    if takes.keys() != given.keys():
        missing, more = sorted(takes.keys() - given.keys()), sorted(given.keys() - takes.keys())
        told = [f"it lacks {key}" for key in missing] + [f"nothing takes its {key}" for key in more]
        raise InputError(f"{', '.join(told)}; give it what the model's constructor takes")
    try:
        return build().num_parameters()
    except (TypeError, ValueError) as error:
        raise InputError(f"the model's constructor refuses it: {error}; mend it") from None


def _train_along(trainer: Trainer, epochs: int) -> None:
    """Do what the first process's training expects of the others."""

    def on_batches(count: int) -> None:
        if trainer.batches_done % SAVE_EVERY == 0:
            trainer.state_dict()

    for _ in trainer.run(epochs, on_batches):
        trainer.state_dict()


def write_history(name: str, history: list[Epoch]) -> None:
    table = pd.DataFrame(map(asdict, history))
    table["lr"] = table["lr"].map("{:.6g}".format)  # which may be as low as 1e-9
    write_csv(history_path(name), table)


def _so_far(trainer: Trainer) -> str:
    done, batches = len(trainer.history), trainer.batches_done
    return f"epoch {done}, batch {batches:,} of the next" if batches else f"epoch {done}"
