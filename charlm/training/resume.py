"""The saved state of an unfinished training, from which it can resume."""

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
    """The file with the state of a training.

    Its name contains a hash of the parameters, the data, the imported code of this project and the
    version of torch, so that no other training resumes from it. The content is a SHA-256 checksum
    followed by the output of `torch.save`, because torch does not detect damaged weights.
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
        """Return the state, or None if there is none; print a line if the file is damaged."""
        if not self.path.exists():
            return None
        try:
            content = self.path.read_bytes()
            digest, saved = content[:_DIGEST_SIZE], content[_DIGEST_SIZE:]
            if hashlib.sha256(saved).digest() != digest:
                raise ValueError("wrong checksum")
            state: dict[str, Any] = torch.load(io.BytesIO(saved), weights_only=True)
        except Exception:  # unpickling damaged bytes can raise anything
            print(f"{self.path} is damaged; training starts from scratch", file=sys.stderr)
            return None
        return state

    def save(self, state: Mapping[str, Any]) -> None:
        """Save `state`, replacing any earlier one."""
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        saved = buffer.getvalue()
        with replacing(self.path) as partial:
            partial.write_bytes(hashlib.sha256(saved).digest() + saved)

    def remove(self) -> None:
        """Delete the state after the training has finished."""
        self.path.unlink(missing_ok=True)


def _loaded_code() -> list[Path]:
    """Return the source files of this project that have been imported or are running."""
    project = Path(__file__).parent.parent.parent
    packages = (project / "charlm", project / "stages")
    loaded = (getattr(module, "__file__", None) for module in [*sys.modules.values()])
    files = {Path(file) for file in loaded if file}
    return sorted(file for file in files if any(map(file.is_relative_to, packages)))
