"""`python -m charlm`."""

from charlm.cli import run

if __name__ == "__main__":
    run()
