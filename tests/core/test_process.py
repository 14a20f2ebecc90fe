"""Items are worked on ahead of the caller, in order, and no further ahead than asked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from fewframes.core.process import worked_ahead
from fewframes.errors import DataError, FewframesError


def work(number: int) -> int:
    if number == 2:
        raise DataError("two")
    return number * number


def test_results_and_errors_come_in_order() -> None:
    found = [(item, str(done)) for item, done in worked_ahead(range(5), work, workers=3)]
    assert found == [(0, "0"), (1, "1"), (2, "two"), (3, "9"), (4, "16")]


def test_other_errors_are_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        list(worked_ahead([1, 0], lambda number: 1 / number, workers=1))


@pytest.mark.parametrize("ahead", [0, 1, 4])
def test_no_more_items_are_taken_than_asked(ahead: int) -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            yield number

    for item, _ in worked_ahead(items(), lambda number: number, workers=2, ahead=ahead):
        assert len(taken) == min(20, item + 1 + ahead)


def test_nothing_is_begun_after_an_error_until_the_caller_goes_on() -> None:
    begun = []

    def fail(number: int) -> None:
        begun.append(number)
        raise DataError("no answer")

    results = worked_ahead(range(9), fail, workers=1, ahead=1)
    _, error = next(results)
    results.close()
    assert isinstance(error, FewframesError)
    assert begun == [0]


def test_the_command_lets_waiting_threads_sleep_before_torch_is_loaded() -> None:
    code = "from fewframes.cli import main as verbs; verbs.app = lambda: __import__('torch'); verbs.main()"
    for asked, policy in ((None, "PASSIVE"), ("ACTIVE", "ACTIVE")):
        environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
        environment |= {"OMP_DISPLAY_ENV": "TRUE"} | ({} if asked is None else {"OMP_WAIT_POLICY": asked})
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert f"OMP_WAIT_POLICY = '{policy}'" in done.stderr + done.stdout
