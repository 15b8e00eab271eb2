"""Train the compact WaveNet, distilled from the hybrid."""

from charlm.models.compact import CompactWaveNet
from stages import run
from stages.training import train


def main() -> None:
    train("compact", CompactWaveNet, teacher="hybrid")


if __name__ == "__main__":
    run(main)
