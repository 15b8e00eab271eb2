"""The saved state of an unfinished training, from which it resumes."""

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
    """The file of a training's state, with a name that only the same training finds.

    The name has a hash of the parameters, the data, the imported code of the project and torch's
    version, so that no other run can resume from it. The file is a SHA-256 checksum followed by
    the output of `torch.save`, since torch does not detect a changed weight.
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
        """Return the state, or None if there is none or it is damaged, with a line to say so."""
        if not self.path.exists():
            return None
        try:
            content = self.path.read_bytes()
            digest, saved = content[:_DIGEST_SIZE], content[_DIGEST_SIZE:]
            if hashlib.sha256(saved).digest() != digest:
                raise ValueError("wrong checksum")
            state: dict[str, Any] = torch.load(io.BytesIO(saved), weights_only=True)
        except Exception:  # whatever unpickling damaged bytes may raise
            print(f"{self.path} is damaged; training starts from scratch", file=sys.stderr)
            return None
        return state

    def save(self, state: Mapping[str, Any]) -> None:
        """Save `state`, replacing the previous one."""
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        saved = buffer.getvalue()
        with replacing(self.path) as partial:
            partial.write_bytes(hashlib.sha256(saved).digest() + saved)

    def remove(self) -> None:
        """Delete the state once training has finished."""
        self.path.unlink(missing_ok=True)


def _loaded_code() -> list[Path]:
    """Return the source files of this project that have been imported, and the main program."""
    project = Path(__file__).parent.parent.parent
    packages = (project / "charlm", project / "stages")
    loaded = (getattr(module, "__file__", None) for module in [*sys.modules.values()])
    files = {Path(file) for file in loaded if file}
    return sorted(file for file in files if any(map(file.is_relative_to, packages)))
