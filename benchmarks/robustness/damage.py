"""What becomes of damaged videos: of a thousand mutants of small files of all containers and codecs, how many are read right, are
refused, or are read wrong without a word.

    PYTHONPATH=tests python -m benchmarks.robustness.damage > benchmarks/robustness/damage.json

The seeds, the mutants and the verdicts are those of `tests/helpers/mutated.py`, of which the tests try a hundred. Each mutant is
read with one decoder thread, two, and one a core, at the same timestamps; the three answers must be one. `wrong`: a picture that is
neither the unmutated file's at the time it came with, nor the mutant's own full decoding's there with nothing raised, marked or
logged. `undefined` of these: full decodings of the mutant differ among themselves, and FFmpeg says nothing of it.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.harness import write_result
from helpers.mutated import CHANGES, Trial, trials


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder in which seeds and mutants stay, to look at")
    arguments = parser.parse_args()
    with TemporaryDirectory() as scratch:
        folder = arguments.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        found: list[Trial] = []
        for trial in trials(folder, arguments.mutants, arguments.seed):
            found.append(trial)
            if trial.verdict == "wrong" or not trial.is_one:
                print(trial, file=sys.stderr, flush=True)
    write_result(
        mutants=len(found),
        seed=arguments.seed,
        verdicts=Counter(trial.verdict for trial in found),
        undefined=sum(trial.verdict == "wrong" and trial.is_undefined for trial in found),
        **{
            "answers that differ with the number of threads": sum(not trial.is_one for trial in found),
            "by change": {
                change: Counter(trial.verdict for trial in found if trial.change == change) for change in CHANGES
            },
            "by seed": {
                name: Counter(trial.verdict for trial in found if trial.seed == name)
                for name in dict.fromkeys(trial.seed for trial in found)
            },
        },
        wrong=[str(trial) for trial in found if trial.verdict == "wrong"],
    )


if __name__ == "__main__":
    main()
