"""Train the fully connected net."""

from charlm.models.fcn import FCN
from stages import run
from stages.training import train


def main() -> None:
    train("fcn", FCN)


if __name__ == "__main__":
    run(main)
