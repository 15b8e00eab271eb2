"""Ask the kernel which files are opened: unlike a Python hook, it also sees C and Rust."""

import ctypes
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IN_OPEN, IN_CREATE, IN_ISDIR, IN_Q_OVERFLOW = 0x20, 0x100, 0x40000000, 0x4000


@contextmanager
def files_opened(root: Path) -> Iterator[set[str]]:
    """Fill a set with the files under `root` that any process opens in the meantime (Linux).

    `.git`, and folders created in the meantime, are left out.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    queue = libc.inotify_init1(os.O_NONBLOCK)
    folders = {}
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        if ".git" not in folder.parts:
            watch = libc.inotify_add_watch(queue, os.fsencode(folder), IN_OPEN)
            assert watch >= 0, os.strerror(ctypes.get_errno())
            folders[watch] = folder
    opened: set[str] = set()
    try:
        yield opened
        while True:
            try:
                events = os.read(queue, 1 << 20)
            except BlockingIOError:
                break
            while events:
                watch, mask, _, length = struct.unpack_from("iIII", events)
                name = events[16 : 16 + length].rstrip(b"\0")
                events = events[16 + length :]
                assert not mask & IN_Q_OVERFLOW
                if name and not mask & IN_ISDIR:
                    opened.add(str((folders[watch] / os.fsdecode(name)).relative_to(root)))
    finally:
        os.close(queue)
