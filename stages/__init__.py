"""The stages of the pipeline: a script each, run as `python -m stages.NAME`.

What they share: where the files are, and how a stage ends that cannot go on.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from charlm.errors import FileError, InputError

DATASET = Path("data/dataset.safetensors")
SPLIT = Path("data/split.safetensors")
EVALUATION = Path("metrics/evaluation.json")


def checkpoint_path(model: str) -> Path:
    return Path(f"data/checkpoints/{model}.safetensors")


def history_path(model: str) -> Path:
    return Path(f"plots/{model}_history.csv")


def run(main: Callable[[], None]) -> None:
    """Run a stage. On bad input, print what to do in one line and exit with code 1.

    DVC removes a stage's outputs before it runs the stage; where the stage then
    refuses its input or is interrupted, they are put back.
    """
    try:
        main()
        return
    except FileError as error:
        message, code = f"error: {error}; make it anew with: dvc repro", 1
    except InputError as error:
        message, code = f"error: {error}", 1
    except KeyboardInterrupt:
        message, code = "interrupted; the same command takes it up again", 130
    print(message, file=sys.stderr, flush=True)
    if "DVC_STAGE" in os.environ:
        from stages.put_back import have_git_look_again, put_back_outputs

        put_back_outputs(os.environ["DVC_STAGE"])
        have_git_look_again()
    sys.exit(code)
