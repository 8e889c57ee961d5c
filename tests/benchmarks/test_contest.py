import json
import re
import sys

import pytest

from benchmarks.contest import LIMIT, OURS, PEER, Contender, Contest, Report, Run, contest, run
from records.errors import RemaskError
from tests import processes
from tests.said import must_name

MADE = "tests.benchmarks.made"


def counter(name: str, role: str, to: int, answer: str = "") -> Contender:
    return Contender(name, role, f"{MADE}:counts", {"to": to, "answer": answer})


def test_contenders_take_turns_and_each_is_measured(capsys):
    found = contest("counting", [counter("we", OURS, 10), counter("they", PEER, 20)], unit="numbers", rounds=2)
    turns = re.findall(r"round (\d) of 2, (\w+)", capsys.readouterr().err)
    assert turns == [("1", "we"), ("1", "they"), ("2", "we"), ("2", "they")]
    assert [[one.amount for one in runs] for runs in found.runs.values()] == [[10, 10], [20, 20]]
    assert found.rounds == 2
    assert found.ours == "we"


def test_what_is_prepared_is_not_measured():
    assert run(Contender("slow to start", OURS, f"{MADE}:prepares", {"seconds": 0.5})).cpu_seconds < 0.25


def test_the_memory_of_all_processes_counts():
    size = 64 << 20
    found = run(Contender("two", OURS, f"{MADE}:holds", {"processes": 2, "size": size}))
    assert found.peak_bytes > 2 * size


def test_variables_reach_the_contender():
    assert run(Contender("it", OURS, f"{MADE}:sees", environment={"SEEN": "7"})).figures == {"seen": 7.0}


def test_a_contender_that_fails_is_explained():
    with pytest.raises(RemaskError, match=r"^it: it failed with status 1:\nthere is no such tokenizer\n$"):
        run(Contender("it", PEER, f"{MADE}:fails"))


def test_a_missing_environment_is_explained():
    with pytest.raises(RemaskError) as refused:
        run(Contender("it", PEER, f"{MADE}:fails", python=".nowhere/python"))
    must_name(str(refused.value), "it:", "no .nowhere/python", "'make bench'")


def test_outcomes_that_differ_are_refused():
    with pytest.raises(RemaskError, match="the outcomes differ"):
        contest("counting", [counter("we", OURS, 1, "a"), counter("they", PEER, 1, "b")], unit="numbers", rounds=1)
    contest("counting", [counter("we", OURS, 1, "a"), counter("limit", LIMIT, 1)], unit="numbers", rounds=1)


def made() -> Contest:
    we = [Run(100.0, seconds, seconds, 10_000_000, versions={"numpy": "2"}) for seconds in (1.0, 2.0, 4.0)]
    they = [Run(100.0, seconds, seconds, 30_000_000) for seconds in (2.0, 8.0, 12.0)]
    return Contest("both", "words", {"we": OURS, "they": PEER}, {"we": we, "they": they})


def test_ratios_are_taken_within_a_round():
    assert made().ratios("we", "they") == [2.0, 4.0, 3.0]
    assert made().ratio("we", "they") == 3.0
    assert made().ratio("they", "we", "peak_bytes") == 3.0
    assert made().median("we", "cpu_seconds") == 2.0


def test_the_table_has_medians_and_spreads():
    lines = made().table().splitlines()
    assert lines[0] == "both (medians of 3 rounds)"
    assert re.split(r"  +", lines[3].strip()) == [
        "they", "peer", "12.5", "8 .. 50", "8.00", "8.00", "30", "3.00", "2.00 .. 4.00"
    ]  # fmt: skip


def test_a_report_ends_with_its_headlines_and_leaves_a_file(tmp_path, capsys):
    report = Report("both", "two texts")
    report.add(made())
    report.note("twice as many as they")
    report.headlines["we_vs_they"] = 3.0
    report.finish(str(tmp_path))
    assert capsys.readouterr().out.splitlines()[-1] == "headline we_vs_they 3"
    left = json.loads((tmp_path / "both.json").read_text())
    assert left["headlines"] == {"we_vs_they": 3.0}
    assert left["input"] == "two texts"
    assert set(left["machine"]) == {"processor", "cores", "memory_bytes", "system"}
    assert re.fullmatch(r"([0-9a-f]{12})?\+?", left["commit"])
    we, they = left["contests"][0]["contenders"]
    assert we["versions"] == {"numpy": "2"}
    assert [one["cpu_seconds"] for one in they["runs"]] == [2.0, 8.0, 12.0]


def test_contenders_start_without_any_package():
    code = "import sys, benchmarks.contender; sys.exit('numpy' in sys.modules or 'records' in sys.modules)"
    assert processes.run([sys.executable, "-c", code], check=False).returncode == 0
