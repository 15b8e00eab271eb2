"""What the training stages have in common: all but the model.

`train` builds the model and its Trainer, resumes what an earlier run left, and goes through the
epochs.
"""

import os
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pandas as pd

from charlm.core.errors import InputError
from charlm.core.files import restoring, write_csv
from charlm.core.params import Params, blame, check_arguments, load_params
from charlm.core.randomness import seeded
from charlm.data import checkpoint
from charlm.data.corpus import Corpus, load_corpus
from charlm.data.splits import Part, load_split
from charlm.data.windows import windows_by_part
from charlm.fast.devices import refuse_if_too_large, set_up, without_memory
from charlm.models.base import LanguageModel, build, count_parameters
from charlm.training.distributed import join, launched
from charlm.training.initialization import initialize
from charlm.training.processes import run_in_processes
from charlm.training.progress import Progress
from charlm.training.resume import ResumeFile
from charlm.training.trainer import Epoch, Trainer
from stages import DATASET, SPLIT, checkpoint_path, history_path, ignore_interrupts

# DVC_ROOT stays that of the user's own checkout if an experiment runs in a temporary copy.
RESUME = Path(os.environ.get("DVC_ROOT", ".")) / ".resume"
SAVE_EVERY = 1000
"""Batches after which the state of a training is saved, if its epochs are longer."""


def train(name: str, architecture: type[LanguageModel]) -> None:
    """Train the model that `params.yaml` describes under `name`.

    Writes its history after each epoch, to be looked at meanwhile, and its checkpoint at
    the end; if it fails or is interrupted, the earlier history and checkpoint stay.
    """
    params = load_params()
    processes = params.training.processes
    if processes > 1 and not launched():
        run_in_processes(f"stages.train_{name}", processes)
        return
    with blame("device"):
        device = set_up(params.device, params.training.threads)
    with blame("training.processes"):
        group = join(processes, device)
    corpus = load_corpus(DATASET)
    model = build_model(name, architecture, params, corpus)
    windows = windows_by_part(corpus, load_split(SPLIT, corpus))
    trainer = Trainer(
        model.to(device),
        windows[Part.TRAIN].to(device),
        windows[Part.VAL].to(device),
        params.recipe(name),
        seed=params.seed,
        group=group,
        fast=params.fast,
        log=partial(print, flush=True),
    )
    resume = resume_file(name, params, device.type)
    if state := group.from_first(resume.load() if group.first else None):
        trainer.load_state_dict(state)
        if group.first:
            print(f"{model.title}: resuming after {_so_far(trainer)}", flush=True)
    with blame(params.origin(name, "lr")):  # if training diverges
        if not group.first:  # the first process writes and reports for all
            run_epochs(trainer, save=trainer.state_dict)
            return
        with restoring(history_path(name)):
            run_epochs(
                trainer,
                save=lambda: resume.save(trainer.state_dict()),
                progress=Progress(model.title, trainer),
                write=partial(write_history, name),
            )
            model.load_state_dict(trainer.weights())
            checkpoint.save(checkpoint_path(name), model, corpus.vocabulary)
    ignore_interrupts()  # or a training that is done would be neither recorded nor resumed
    resume.remove()


def build_model(
    name: str, architecture: type[LanguageModel], params: Params, corpus: Corpus
) -> LanguageModel:
    """Build the model of a section of `params.yaml`, with its first weights.

    Raises InputError, with the line of `params.yaml`, for arguments that its constructor does not
    take or refuses, for one that is too large for this machine, and for one that could not be
    saved.
    """
    given = params.arguments(name)
    check_arguments(name, architecture, given)
    with blame(name):
        arguments = {
            "vocab_size": len(corpus.vocabulary),
            "block_size": corpus.block_size,
            **given,
        }
        parameters = 0
        with suppress(Exception), without_memory():  # a constructor may need real numbers
            parameters = count_parameters(architecture(**arguments))
        refuse_if_too_large(parameters)
        try:
            with seeded(params.seed, "init"):
                model = architecture(**arguments)
                initialize(model, params.recipe(name).init)
        except Exception as error:  # nn.MultiheadAttention asserts, others raise KeyError
            raise InputError(
                f"the constructor of {architecture.__name__} refuses it: {error}; correct it"
            ) from None
        checkpoint.refuse_unsavable(model, corpus.vocabulary, build)
    return model


def resume_file(name: str, params: Params, device: str) -> ResumeFile:
    """Where the state of this training is kept, and of no other."""
    decisive = {
        "recipe": params.recipe(name).model_dump(),
        "arguments": params.arguments(name),
        "seed": params.seed,
        "threads": params.training.threads,
        "processes": params.training.processes,
        "device": device,
        "fast": params.fast,
    }
    return ResumeFile(RESUME, name, decisive, data=[DATASET, SPLIT])


def run_epochs(
    trainer: Trainer,
    save: Callable[[], object],
    progress: Progress | None = None,
    write: Callable[[list[Epoch]], None] = lambda history: None,
) -> None:
    """Go through the epochs that are left, saving the state now and then."""

    def on_batches(count: int) -> None:
        if progress:
            progress.batches(count)
        if trainer.batches_done % SAVE_EVERY == 0:
            save()

    if trainer.history:
        write(trainer.history)
    with progress or nullcontext():
        for epoch in trainer.run(trainer.recipe.epochs, on_batches):
            if progress:
                progress.epoch(epoch)
            write(trainer.history)
            save()
    if progress:
        progress.ended(trainer)


def write_history(name: str, history: list[Epoch]) -> None:
    table = pd.DataFrame(map(asdict, history))
    table["lr"] = table["lr"].map("{:.6g}".format)  # which may be as low as 1e-9
    write_csv(history_path(name), table)


def _so_far(trainer: Trainer) -> str:
    done, batches = len(trainer.history), trainer.batches_done
    return f"epoch {done}, batch {batches:,} of the next" if batches else f"epoch {done}"
