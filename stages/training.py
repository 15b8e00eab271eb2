"""The part that all training stages share.

`train` builds the model and its Trainer, resumes an interrupted training, and runs the epochs.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pandas as pd

from charlm.core.errors import InputError
from charlm.core.files import restoring, write_csv
from charlm.core.params import Params, blame, check_arguments
from charlm.core.randomness import seeded
from charlm.data import checkpoint
from charlm.data.corpus import Corpus, load_corpus
from charlm.data.splits import Part, load_split
from charlm.data.windows import Windows, windows_by_part
from charlm.fast.devices import refuse_if_too_large, set_up, without_memory
from charlm.fast.running import Runner
from charlm.models.base import LanguageModel, build, count_parameters
from charlm.training.checks import check, construct
from charlm.training.distillation import taught
from charlm.training.distributed import join, launched
from charlm.training.initialization import initialize
from charlm.training.processes import run_in_processes
from charlm.training.progress import Progress
from charlm.training.resume import ResumeFile
from charlm.training.trainer import Epoch, Trainer
from stages import (
    CHECKOUT,
    DATASET,
    SPLIT,
    checkpoint_path,
    history_path,
    ignore_interrupts,
    read_params,
    refuse_changed_inputs,
)

RESUME = CHECKOUT / ".resume"
SAVE_EVERY = 1000
"""Number of batches between saves of the training state within an epoch."""


def train(
    name: str,
    architecture: type[LanguageModel],
    prepare: Callable[[LanguageModel, Windows], None] = lambda model, windows: None,
    teacher: str | None = None,
) -> None:
    """Train the model of section `name` in `params.yaml`.

    Writes the history after each epoch, so that you can watch it, and the checkpoint at the end. If
    training fails or is interrupted, the previous versions of both are kept.

    Args:
        name: the section, which is also the name of the stage and its outputs.
        architecture: the class of the model.
        prepare: called before training with the model and the training windows.
        teacher: the model, trained by an earlier stage, from which this one can be distilled.
    """
    params = read_params()
    processes = params.training.processes
    if processes > 1 and not launched():
        run_in_processes(f"stages.train_{name}", processes)
        return
    with blame("device"):
        device = set_up(params.device, params.training.threads)
    with blame("training.processes"):
        group = join(processes, device)
    corpus = load_corpus(DATASET)
    windows = windows_by_part(corpus, load_split(SPLIT, corpus))
    params = params.sized(len(windows[Part.TRAIN]), name)
    log: Callable[[str], None] = partial(print, flush=True) if group.first else lambda line: None
    model = build_model(name, architecture, params, corpus, log)
    prepare(model, windows[Part.TRAIN])
    recipe = params.recipe(name)
    training_windows = windows[Part.TRAIN].to(device)
    taught_by = []
    if recipe.distill:
        if teacher is None:
            with blame(params.origin(name, "distill")):
                raise InputError(f"stages/train_{name}.py has no teacher; set distill to 0")
        taught_by = [checkpoint_path(teacher)]
        loaded = checkpoint.load_for(taught_by[0], corpus, build).to(device)
        training_windows = taught(
            training_windows, Runner(loaded, params.fast), len(corpus.vocabulary), recipe.distill
        )
    trainer = Trainer(
        model.to(device),
        training_windows,
        windows[Part.VAL].to(device),
        recipe,
        seed=params.seed,
        group=group,
        fast=params.fast,
        log=log,
    )
    resume = resume_file(name, params, device.type, taught_by)
    if state := group.broadcast(resume.load() if group.first else None):
        trainer.load_state_dict(state)
        log(f"{model.title}: resuming after {_so_far(trainer)}")
    with blame(params.origin(name, "batch_size")):
        trainer.check_last_batch()
    with blame(params.origin(name, "lr")):  # the parameter to change if training diverges
        if not group.first:  # only the first process writes and reports
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
    ignore_interrupts()  # otherwise a finished training could be neither recorded nor resumed
    refuse_changed_inputs()
    resume.remove()


def build_model(
    name: str,
    architecture: type[LanguageModel],
    params: Params,
    corpus: Corpus,
    log: Callable[[str], None] = print,
) -> LanguageModel:
    """Build and initialize the model of a section of `params.yaml`.

    Raises InputError, with the line in `params.yaml` or in the model's file, if the constructor
    rejects the arguments, `forward` does not return logits, the model is too large for this
    machine, or it cannot be saved.
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
        with suppress(Exception), without_memory():  # some constructors need real tensors
            parameters = count_parameters(architecture(**arguments))
        refuse_if_too_large(parameters)
        with seeded(params.seed, "init"):
            model = construct(architecture, arguments)
            initialize(model, params.recipe(name).init)
    check(model, corpus.vocabulary, log)
    return model


def resume_file(
    name: str, params: Params, device: str, taught_by: Sequence[Path] = ()
) -> ResumeFile:
    """Return the resume file of this training, identified by its parameters, data and code."""
    settings = {
        "recipe": params.recipe(name).model_dump(),
        "arguments": params.arguments(name),
        "seed": params.seed,
        "threads": params.training.threads,
        "processes": params.training.processes,
        "device": device,
        "fast": params.fast,
    }
    return ResumeFile(RESUME, name, settings, data=[DATASET, SPLIT, *taught_by])


def run_epochs(
    trainer: Trainer,
    save: Callable[[], object],
    progress: Progress | None = None,
    write: Callable[[list[Epoch]], None] = lambda history: None,
) -> None:
    """Run the remaining epochs, and save the state regularly."""

    def on_batches(count: int) -> None:
        if progress:
            progress.batches(count)
        if trainer.batches_done % SAVE_EVERY == 0:
            save()

    if trainer.history:
        write(trainer.history)
    with progress or nullcontext():
        for epoch in trainer.run(trainer.recipe.epochs, on_batches):
            write(trainer.history)
            save()
            if progress:
                progress.epoch(epoch)
    if progress:
        progress.ended(trainer)


def write_history(name: str, history: list[Epoch]) -> None:
    table = pd.DataFrame(map(asdict, history))
    table["lr"] = table["lr"].map("{:.6g}".format)  # can be as low as 1e-9
    write_csv(history_path(name), table)


def _so_far(trainer: Trainer) -> str:
    done, batches = len(trainer.history), trainer.batches_done
    return f"epoch {done}, batch {batches:,} of the next" if batches else f"epoch {done}"
