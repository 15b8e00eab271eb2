"""Ctrl-C when libraries would lose it.

torch drops an exception that comes while it imports NumPy, which then lacks half of its names,
Numba drops one as it returns an array, and Python ignores one in a callback or in `__del__`.
"""

import signal
import sys
from types import FrameType

noted: list[int] = []
"""The signals that came, the last of them last."""


def note(number: int, frame: object) -> None:
    noted.append(number)


def defer_interrupts() -> None:
    """Only note Ctrl-C, for the time of the imports, until `obey_interrupts` is called."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, note)


def obey_interrupts() -> None:
    """Raise KeyboardInterrupt on Ctrl-C from now on, and if it was noted before."""
    sys.unraisablehook = _interrupt_again
    if signal.getsignal(signal.SIGINT) in (note, signal.default_int_handler):
        signal.signal(signal.SIGINT, interrupt)
    if noted:
        raise KeyboardInterrupt


def interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, as the handler of a signal; a moment later where it would be lost.

    Compiled code calls Numba's serialize module for the type of each array that it returns.
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
    """Repeat a Ctrl-C that Python ignores, a moment later."""
    if issubclass(ignored.exc_type, KeyboardInterrupt):
        _interrupt_later()
    else:
        sys.__unraisablehook__(ignored)


def _interrupt_later() -> None:
    import _thread
    import threading

    threading.Timer(0.01, _thread.interrupt_main, noted[-1:]).start()
