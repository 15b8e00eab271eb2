"""Train the WaveNet."""

from charlm.models.wavenet import WaveNet
from stages import run
from stages.training import train


def main() -> None:
    train("wavenet", WaveNet)


if __name__ == "__main__":
    run(main)
