import json

import pytest

from benchmarks import report
from benchmarks.config import ReportOptions
from benchmarks.contest import LIMIT, OURS, PEER, Contest, Report, Run
from records.errors import RemaskError


def result(folder: str, *, rate: float) -> None:
    runs = {
        "remask": [Run(rate, 1.0, 1.0, 10), Run(rate * 2, 1.0, 1.0, 10)],
        "they": [Run(1.0, 1.0, 1.0, 20), Run(1.0, 1.0, 1.0, 20)],
        "nobody": [Run(8.0, 1.0, 1.0, 5), Run(8.0, 1.0, 1.0, 5)],
    }
    made = Report("counting", "numbers")
    made.contests.append(Contest("counting", "numbers", dict(zip(runs, (OURS, PEER, LIMIT), strict=True)), runs))
    made.headlines["we_vs_they"] = made.contests[0].ratio("remask", "they")
    made.finish(folder)


def test_results_are_read_as_they_were_written(tmp_path):
    result(str(tmp_path), rate=2.0)
    (found,) = report.read(str(tmp_path))
    assert found.benchmark == "counting"
    assert found.headlines == {"we_vs_they": 3.0}
    assert found.contests[0].ratios("remask", "they") == [2.0, 4.0]
    assert found.contests[0].roles == {"remask": OURS, "they": PEER, "nobody": LIMIT}


def test_the_table_replaces_the_one_before_and_nothing_else(tmp_path, capsys):
    result(str(tmp_path), rate=2.0)
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    for _ in range(2):
        report.main(ReportOptions(results=str(tmp_path), readme=str(readme)))
    text = readme.read_text()
    assert text.startswith(f"before\n{report.BEGIN}\n![")
    assert text.endswith(f"\n{report.END}\nafter\n")
    assert "old" not in text
    assert text.count("| counting | 3.00 numbers | they | 1.00 | 3.00 (2.00 to 4.00) | 2.00 |") == 1
    assert "](results.png)" in text
    assert (tmp_path / "results.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"made {tmp_path}/results.png and the table in")


def test_a_file_without_the_marks_is_left_alone(tmp_path):
    result(str(tmp_path), rate=2.0)
    readme = tmp_path / "README.md"
    readme.write_text("mine")
    with pytest.raises(RemaskError, match="expected the lines '<!-- benchmarks: begin -->' and"):
        report.main(ReportOptions(results=str(tmp_path), readme=str(readme)))
    assert readme.read_text() == "mine"


def test_no_results_are_explained(tmp_path):
    with pytest.raises(RemaskError, match=r"no results here; run 'make bench' first$"):
        report.main(ReportOptions(results=str(tmp_path), readme=str(tmp_path / "README.md")))


def test_no_readme_is_explained(tmp_path):
    result(str(tmp_path), rate=2.0)
    with pytest.raises(RemaskError, match=r"README\.md: No such file or directory; name the file with --readme$"):
        report.main(ReportOptions(results=str(tmp_path), readme=str(tmp_path / "README.md")))


def test_the_results_file_is_plain_json(tmp_path):
    result(str(tmp_path), rate=2.0)
    assert json.loads((tmp_path / "counting.json").read_text())["contests"][0]["contenders"][0]["runs"][0] == {
        "amount": 2.0,
        "cpu_seconds": 1.0,
        "wall_seconds": 1.0,
        "peak_bytes": 10,
        "digest": "",
        "figures": {},
    }
