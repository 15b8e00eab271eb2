"""Commands to DVC's queue, and waiting for it. For real queues, see test_seeds and test_sweep."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from experiments import queue


@dataclass
class Fake:
    """A repository whose queue moves to its next state each time someone looks at it."""

    states: list[dict[str, str]] = field(default_factory=list)
    done: dict[str, str] = field(default_factory=dict)
    commands: list[str] = field(default_factory=list)

    def queued(self) -> dict[str, str]:
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]

    def command(self, command: Sequence[str], check: bool) -> None:
        self.commands.append(" ".join(command))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    fake = Fake()
    monkeypatch.setattr(queue, "queued", fake.queued)
    monkeypatch.setattr(queue, "finished", lambda: fake.done)
    monkeypatch.setattr(subprocess, "run", fake.command)
    monkeypatch.setattr(queue, "POLL_SECONDS", 0.0)
    return fake


def test_a_configuration_is_one_command(fake: Fake) -> None:
    fake.states = [{}]
    assert queue.enqueue("a", ["lr=0.1", "epochs=3"], [5, 6]) == ["a-1", "a-2"]
    assert fake.commands == [
        "dvc exp run --queue --name a -S seed=5,6 -S lr=0.1 -S epochs=3",
    ]


def test_a_single_seed_adds_no_number_to_the_name(fake: Fake) -> None:
    fake.states = [{}]
    assert queue.enqueue("a", [], [5]) == ["a"]
    assert fake.commands == ["dvc exp run --queue --name a -S seed=5"]


def test_finished_or_queued_experiments_are_not_queued_again(fake: Fake) -> None:
    fake.states, fake.done = [{"a-1": "Failed", "a-2": "Queued", "a-4": "Running"}], {"a-3": "f00d"}
    assert queue.enqueue("a", ["lr=0.1"], [5, 6, 7, 8]) == ["a-1", "a-2", "a-4"]
    assert fake.commands == ["dvc exp run --queue --name a-1 -S seed=5 -S lr=0.1"]


def test_nothing_is_queued_if_every_result_exists(fake: Fake) -> None:
    fake.states, fake.done = [{}], {"a-1": "f00d", "a-2": "beef"}
    assert queue.enqueue("a", [], [5, 6]) == []
    assert fake.commands == []


def test_a_queue_with_other_experiments_is_refused(fake: Fake) -> None:
    mine, done = {"a-1": "Queued", "a-2": "Running"}, {"b": "Failed", "c": "Success"}
    fake.states = [mine | done]
    queue.refuse_others(["a-1", "a-2", "a-3"])
    for theirs, told in (
        ({"tan-dado": "Queued"}, "tan-dado is in the queue"),
        ({"tan-dado": "Running", "sad-dogs": "Queued"}, "sad-dogs and 1 more are in the queue"),
    ):
        fake.states = [mine | done | theirs]
        with pytest.raises(
            SystemExit, match=f"^error: {told} and would run, too; .*dvc exp remove"
        ):
            queue.refuse_others(["a-1", "a-2", "a-3"])
    assert fake.commands == []


def test_run_waits_until_all_experiments_have_ended(
    fake: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.states = [
        {"a": "Queued", "b": "Running", "another": "Failed"},
        {"a": "Running", "b": "Success"},
        {"a": "Success", "b": "Success"},
    ]
    queue.run(["a", "b"], jobs=3)
    assert fake.commands == ["dvc queue start --jobs 3"]
    told = [line.split("min  ")[1] for line in capsys.readouterr().err.splitlines()]
    assert told == ["b: success, 1 of 2", "a: success, 2 of 2"]


def test_failed_experiments_are_named_once_the_others_have_ended(fake: Fake) -> None:
    fake.states = [{"a": "Failed", "b": "Running"}, {"a": "Failed", "b": "Success"}]
    with pytest.raises(SystemExit, match=r"^error: no result of a; see: dvc queue logs a$"):
        queue.run(["a", "b"], jobs=1)
    assert len(fake.states) == 1


def test_a_queue_without_a_worker_is_reported(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.states = [{"a": "Queued"}]
    monkeypatch.setattr(queue, "PATIENCE_SECONDS", 0.0)
    with pytest.raises(SystemExit, match="nothing in the queue is running; start it with: dvc"):
        queue.run(["a"], jobs=1)


def test_workers_are_restarted_while_anything_is_queued(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.states = [{"a": "Queued"}, {"a": "Running"}, {"a": "Success"}]
    monkeypatch.setattr(queue, "RESTART_SECONDS", 0.0)
    queue.run(["a"], jobs=2)
    assert fake.commands == ["dvc queue start --jobs 2", "dvc queue start --jobs 2 --quiet"]


def test_running_experiments_are_killed_before_they_are_removed(fake: Fake) -> None:
    fake.states = [
        {"a-1": "Running", "a-2": "Queued", "b": "Running"},
        {"a-1": "Running"},
        {"a-1": "Failed", "a-2": "Queued"},
        {"a-1": "Failed", "a-2": "Queued"},
        {},
    ]
    queue.forget(["a-1", "a-2", "a-3"])
    killed = ["dvc queue kill a-1"] * 2
    assert fake.commands == [*killed, "dvc exp remove --quiet a-1 a-2"]
