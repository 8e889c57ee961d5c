"""The command behind `make mutants`; the tests of what it mutates stand in `tests/mutants/modules.py`."""

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.mutants import tried
from tests.mutants.confined import can_confine
from tests.mutants.made import Mutant, drafts
from tests.mutants.modules import MODULES
from tests.mutants.tried import ROOT, Outcome, Trial

FOUND = ROOT / "out" / "mutants.jsonl"
SAMPLE, WANTED = 400, 0.85


def main() -> int:
    """Try the mutants of which nothing is known yet; return 1 where too many survive."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument(
        "files", nargs="*", help="modules to mutate, of those in tests/mutants/modules.py; all by default"
    )
    parser.add_argument("--all", action="store_true", help=f"try all mutants, not a sample of {SAMPLE}")
    parser.add_argument("--sample", type=int, default=SAMPLE, help="how many to try, of all modules together")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1), help="how many to try at a time")
    options = parser.parse_args()
    if not can_confine():
        parser.error("needs Linux 6.12 with Landlock: a mutant of what removes files removes whatever it may")
    if unknown := set(options.files) - set(MODULES):
        parser.error(f"{', '.join(sorted(unknown))}: not in tests/mutants/modules.py")
    made = [draft for file in MODULES for draft in drafts(file, (ROOT / file).read_text(encoding="utf-8"))]
    drawn = sorted(made, key=lambda draft: draft.lot)[: None if options.all else options.sample]
    wanted = [draft.written() for draft in drawn if not options.files or draft.file in options.files]
    kind = "all" if len(drawn) == len(made) else f"a sample of {len(drawn)} of the"
    print(f"{kind} {len(made)} mutants; {len(wanted)} of them in what was asked for", flush=True)
    if not wanted:
        parser.error("the sample has none of what was asked for; give a larger --sample, or --all")

    known = _known()
    begun = [(mutant, known[mutant.id]) for mutant in wanted if mutant.id in known]
    rest = [mutant for mutant in wanted if mutant.id not in known]
    print(f"{len(begun)} are known from earlier runs ({FOUND.relative_to(ROOT)}); {len(rest)} to try", flush=True)
    tried.prepare()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        places = [tried.copied(Path(folder, str(number))) for number in range(options.jobs)]
        done = begun + _tried(rest, places)
    return report(done)


def _tried(rest: Sequence[Mutant], places: list[Path]) -> list[tuple[Mutant, str]]:
    """Try mutants, each in a copy of the tree; return their results."""
    done: list[tuple[Mutant, str]] = []
    FOUND.parent.mkdir(exist_ok=True)
    for file in dict.fromkeys(mutant.file for mutant in rest):
        tests = [file, *MODULES[file]]
        tried.write(places[0], None, file)
        whole = _ended(unchanged := Trial(places[0], tests, {}, limit=1200))
        if whole.result != "survived":
            sys.exit(f"{file}: its tests fail as it is ({whole.killer}):\n{unchanged.log()}")
        print(f"{file}: its tests take {whole.seconds:.1f} s", flush=True)
        history = {test: (seconds, 0) for test, seconds in whole.took.items()}
        waiting, running, free = [mutant for mutant in rest if mutant.file == file], [], list(places)
        while waiting or running:
            while waiting and free:
                mutant, place = waiting.pop(), free.pop()
                tried.write(place, mutant, file)
                running.append((mutant, Trial(place, tests, history, limit=4 * whole.seconds + 30)))
            for mutant, trial in list(running):
                if outcome := trial.outcome():
                    running.remove((mutant, trial))
                    free.append(trial.place)
                    done.append((mutant, outcome.result))
                    if outcome.killer in history:
                        seconds, kills = history[outcome.killer]
                        history[outcome.killer] = seconds, kills + 1
                    _tell(mutant, outcome, f"{len(done)}/{len(rest)}", _digest(MODULES[file]))
            time.sleep(0.02)
        for place in places:
            tried.write(place, None, file)
    return done


def _ended(trial: Trial) -> Outcome:
    while not (outcome := trial.outcome()):
        time.sleep(0.02)
    return outcome


def _tell(mutant: Mutant, outcome: Outcome, count: str, tests: str) -> None:
    by = f" by {outcome.killer}" if outcome.killer else ""
    print(f"{count} {mutant.file}:{mutant.line} {outcome.result} in {outcome.seconds:.1f} s{by}", flush=True)
    if outcome.result == "survived":
        print("\n".join(f"    {line}" for line in mutant.change), flush=True)
    with FOUND.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"id": mutant.id, "result": outcome.result, "tests": tests}) + "\n")


def _known() -> dict[str, str]:
    """Return what is known of mutants by their ids, as long as their tests stay the same: another may kill, or not."""
    lines = FOUND.read_text(encoding="utf-8").splitlines() if FOUND.exists() else []
    now = {_digest(tests) for tests in MODULES.values()}
    found = [json.loads(line) for line in lines]
    return {each["id"]: each["result"] for each in found if each["tests"] in now}


def _digest(tests: Sequence[str]) -> str:
    return hashlib.sha256(b"".join((ROOT / test.partition("::")[0]).read_bytes() for test in tests)).hexdigest()[:16]


def report(done: Sequence[tuple[Mutant, str]]) -> int:
    """Print what became of all mutants; return the exit status."""
    print(f"\n{'':24} mutants  killed  timed out  survived   share")
    for file in (*dict.fromkeys(mutant.file for mutant, _ in done), "all"):
        results = [result for mutant, result in done if file in (mutant.file, "all")]
        killed, late, survived = (results.count(result) for result in ("killed", "timed out", "survived"))
        share = 1 - survived / len(results)
        print(f"{file:24} {len(results):7} {killed:7} {late:10} {survived:9} {share:7.1%}")
    print("\nSurvivors:")
    for mutant in sorted(mutant for mutant, result in done if result == "survived"):
        print(f"{mutant.file}:{mutant.line}", *mutant.change, sep="\n    ")
    survivors = sum(result == "survived" for _, result in done)
    return int(survivors > (1 - WANTED) * len(done))


if __name__ == "__main__":
    sys.exit(main())
