"""Ctrl-C when libraries would lose it.

torch drops an exception that comes while it imports NumPy, which then lacks half of its names, and
Python ignores one in a callback or in `__del__`.
"""

import signal
import sys

noted: list[int] = []
"""The signals that came while modules were imported."""


def note(number: int, frame: object) -> None:
    noted.append(number)


def defer_interrupts() -> None:
    """Only note Ctrl-C, for the time of the imports, until `obey_interrupts` is called."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, note)


def obey_interrupts() -> None:
    """Raise KeyboardInterrupt on Ctrl-C from now on, and if it was noted before."""
    sys.unraisablehook = _interrupt_again
    if signal.getsignal(signal.SIGINT) is note:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if noted:
        raise KeyboardInterrupt


def _interrupt_again(ignored: "sys.UnraisableHookArgs") -> None:
    """Repeat a Ctrl-C that Python ignores, a moment later."""
    if issubclass(ignored.exc_type, KeyboardInterrupt):
        import _thread
        import threading

        threading.Timer(0.01, _thread.interrupt_main).start()
    else:
        sys.__unraisablehook__(ignored)
