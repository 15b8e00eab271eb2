"""`python -m charlm`."""

import signal
import sys

from charlm.cli import main

if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):  # who reads the names may stop, as `head` does: so does this
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(main())
