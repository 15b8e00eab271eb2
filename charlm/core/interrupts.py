"""Handle Ctrl-C at moments when it would be lost.

torch swallows an exception raised while it imports NumPy, which is then left half imported. Numba
swallows one while it returns an array. Python ignores one in a callback or in `__del__`.
"""

import signal
import sys
from types import FrameType

noted: list[int] = []
"""The signals received so far, in order."""


def note(number: int, frame: object) -> None:
    noted.append(number)


def defer_interrupts() -> None:
    """Only record Ctrl-C until `obey_interrupts` is called. Use it during imports."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, note)


def obey_interrupts() -> None:
    """Raise KeyboardInterrupt on Ctrl-C from now on, and at once if Ctrl-C was recorded."""
    sys.unraisablehook = _interrupt_again
    if signal.getsignal(signal.SIGINT) in (note, signal.default_int_handler):
        signal.signal(signal.SIGINT, interrupt)
    if noted:
        raise KeyboardInterrupt


def interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, as a signal handler; delay it if it would be lost now.

    It would be lost in Numba's serialize module, which compiled code calls when it returns an
    array.
    """
    note(number, frame)
    caller = frame
    while caller:
        if caller.f_globals.get("__name__") == "numba.core.serialize":
            _interrupt_later()
            return
        caller = caller.f_back
    raise KeyboardInterrupt


def _interrupt_again(ignored: "sys.UnraisableHookArgs") -> None:
    """Repeat an interrupt that Python ignores, a moment later."""
    if issubclass(ignored.exc_type, KeyboardInterrupt):
        _interrupt_later()
    else:
        sys.__unraisablehook__(ignored)


def _interrupt_later() -> None:
    import _thread
    import threading

    threading.Timer(0.01, _thread.interrupt_main, noted[-1:]).start()
