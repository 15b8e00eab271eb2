"""The state of an unfinished training, kept so that it need not start anew."""

import hashlib
import io
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from charlm.core.files import replacing

_DIGEST_SIZE = hashlib.sha256().digest_size


class ResumeFile:
    """A training's state on disk, under a name that only the same training computes.

    The name is a hash of the parameters, the data, the code of the project that is
    loaded, and torch's version: a state is never taken up by another run. The file is
    the SHA-256 of what follows, then what `torch.save` wrote: torch itself does not
    notice a changed weight.
    """

    def __init__(
        self, folder: Path, name: str, parameters: Mapping[str, Any], data: Iterable[Path]
    ) -> None:
        digest = hashlib.sha256(json.dumps(parameters, sort_keys=True).encode())
        digest.update(torch.__version__.encode())
        for path in [*data, *_loaded_code()]:
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        self.path = folder / f"{name}-{digest.hexdigest()[:16]}.pt"

    def load(self) -> dict[str, Any] | None:
        """The state, or None where there is none or it is damaged (said in a line)."""
        if not self.path.exists():
            return None
        try:
            content = self.path.read_bytes()
            digest, saved = content[:_DIGEST_SIZE], content[_DIGEST_SIZE:]
            if hashlib.sha256(saved).digest() != digest:
                raise ValueError("other bytes than were written")
            state: dict[str, Any] = torch.load(io.BytesIO(saved), weights_only=True)
        except Exception:  # whatever unpickling damaged bytes may raise
            print(f"{self.path} is damaged; training starts anew", file=sys.stderr)
            return None
        return state

    def save(self, state: Mapping[str, Any]) -> None:
        """Put `state` in the place of the one before."""
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        saved = buffer.getvalue()
        with replacing(self.path) as partial:
            partial.write_bytes(hashlib.sha256(saved).digest() + saved)

    def remove(self) -> None:
        """Forget the state: training has finished."""
        self.path.unlink(missing_ok=True)


def _loaded_code() -> list[Path]:
    """The source files of this project that the running program has imported, itself included."""
    project = Path(__file__).parent.parent.parent
    packages = (project / "charlm", project / "stages")
    loaded = (getattr(module, "__file__", None) for module in [*sys.modules.values()])
    files = {Path(file) for file in loaded if file}
    return sorted(file for file in files if any(map(file.is_relative_to, packages)))
