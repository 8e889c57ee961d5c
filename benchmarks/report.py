"""Draws the results of the benchmarks, and puts them as a table into README.md."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import gpu_result
from benchmarks.config import ReportOptions
from benchmarks.contest import LIMIT, OURS, PEER, Contest, Run
from benchmarks.figures import short
from records.errors import RemaskError

BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
"""Between them stands in README.md what `make bench-report` writes."""

PICTURE = "results.png"
_COLOURS = {OURS: "#1f6f8b", PEER: "#a9b4bd", LIMIT: "#e0c48c"}


class Results(NamedTuple):
    """What one benchmark has left."""

    benchmark: str
    input: str
    machine: Mapping[str, Any]
    commit: str
    contests: Sequence[Contest]
    headlines: Mapping[str, float]


def main(options: ReportOptions) -> None:
    """Read all results, draw them, and write the table."""
    found, gpu = read(options.results), read_gpu(options.results)
    if not (found or gpu):
        raise RemaskError(f"{options.results}: no results here; run 'make bench' first")
    picture = os.path.join(options.results, PICTURE)
    if contests := [contest for results in found for contest in results.contests]:
        draw(contests, picture)
    readme = Path(options.readme)
    try:
        text = readme.read_text(encoding="utf-8")
    except OSError as error:
        raise RemaskError(f"{readme}: {error.strerror}; name the file with --readme") from error
    sections = [section(found, os.path.relpath(picture, readme.parent))] if found else []
    sections += [gpu_result.section(gpu)] if gpu else []
    readme.write_text(inserted(text, "\n\n".join("\n".join(lines) for lines in sections)), encoding="utf-8")
    made = f"{picture} and the table" if contests else "the table"
    print(f"made {made} in {readme}, from {len(found) + bool(gpu)} benchmarks")


def read(folder: str) -> list[Results]:
    """Return all results of contests in a folder."""
    paths = sorted(path for path in Path(folder).glob("*.json") if path.name != gpu_result.FILE)
    return [_results(json.loads(path.read_text())) for path in paths]


def read_gpu(folder: str) -> gpu_result.GpuResult | None:
    """Return the result on a GPU, where there is one that holds figures."""
    path = Path(folder) / gpu_result.FILE
    result = gpu_result.read(path) if path.exists() else None
    return result if result and result.figures else None


def section(found: Sequence[Results], picture: str) -> list[str]:
    """Return the lines that stand in README: the picture, the table, and where the figures are from."""
    rows = [row for results in found for contest in results.contests for row in table_rows(contest)]
    where = {
        f"{results.machine['processor']}, {results.machine['cores']} cores, at commit {results.commit.rstrip('+')}"
        for results in found
    }
    headlines = ", ".join(f"{name} {value:.3g}" for results in found for name, value in results.headlines.items())
    table = [
        f"![Work done in a CPU-second, by remask, by its peers and by what limits it]({picture})",
        "",
        "| | remask | beside it | | remask / it | its memory / ours |",
        "| --- | --- | --- | --- | --- | --- |",
        *rows,
        "",
        f"Work in a CPU-second; medians over the rounds, in brackets their spread. {'; '.join(sorted(where))}.",
    ]
    return [*(table if rows else []), f"Headlines: {headlines}."]


def table_rows(contest: Contest) -> list[str]:
    """Return a row for each peer and each limit that stands beside ours.

    >>> runs = {"we": [Run(9, 1.0, 1, 50)], "they": [Run(3, 1.0, 1, 100)]}
    >>> print(*table_rows(Contest("counting", "numbers", {"we": "ours", "they": "peer"}, runs)))
    | counting | 9.00 numbers | they | 3.00 | 3.00 (3.00 to 3.00) | 2.00 |
    """
    ours = contest.ours
    rows = []
    for name in contest.runs:
        if contest.roles[name] == OURS:
            continue
        ratios = contest.ratios(ours, name)
        rows.append(
            f"| {contest.title} | {short(contest.median(ours))} {contest.unit} | {name} | "
            f"{short(contest.median(name))} | {contest.ratio(ours, name):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}) | {contest.ratio(name, ours, 'peak_bytes'):.2f} |"
        )
    return rows


def inserted(text: str, new: str) -> str:
    """Return a text with what stands between its two marks replaced.

    Raises:
        RemaskError: the marks are not there.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise RemaskError(f"README: expected the lines '{BEGIN}' and '{END}', between which the table is to stand")
    return f"{before}{BEGIN}\n{new}\n{END}{after}"


def draw(contests: Sequence[Contest], path: str) -> None:
    """Draw a bar for each contender, one picture a contest: how much it does in a CPU-second."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = 2
    rows = -(-len(contests) // columns)
    heights = [max(len(contest.runs) for contest in contests[row * columns :][:columns]) for row in range(rows)]
    figure, axes = pyplot.subplots(
        rows,
        columns,
        figsize=(13, 0.9 * rows + 0.42 * sum(heights)),
        squeeze=False,
        height_ratios=[height + 1.2 for height in heights],
        layout="constrained",
    )
    for axis in axes.flat[len(contests) :]:
        axis.set_visible(False)
    for contest, axis in zip(contests, axes.flat, strict=False):
        names = list(contest.runs)
        rates = [contest.median(name) for name in names]
        spread = [[run.rate for run in contest.runs[name]] for name in names]
        errors = [
            [rate - min(of_one) for rate, of_one in zip(rates, spread, strict=True)],
            [max(of_one) - rate for rate, of_one in zip(rates, spread, strict=True)],
        ]
        colours = [_COLOURS[contest.roles[name]] for name in names]
        axis.barh(names, rates, xerr=errors, color=colours, ecolor="#444444", capsize=2)
        axis.bar_label(axis.containers[-1], labels=[f"  {short(rate)}" for rate in rates], fontsize=9)
        axis.set_title(f"{contest.title}: {contest.unit} a CPU-second", fontsize=10, loc="left")
        axis.set_xlim(0, 1.18 * max(max(of_one) for of_one in spread))
        axis.invert_yaxis()
        axis.xaxis.set_visible(False)
        axis.spines[["top", "right", "bottom"]].set_visible(False)
        axis.tick_params(axis="y", length=0, labelsize=9)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def _results(content: Mapping[str, Any]) -> Results:
    contests = [
        Contest(
            contest["title"],
            contest["unit"],
            {one["name"]: one["role"] for one in contest["contenders"]},
            {one["name"]: [Run(**run) for run in one["runs"]] for one in contest["contenders"]},
        )
        for contest in content["contests"]
    ]
    return Results(
        content["benchmark"], content["input"], content["machine"], content["commit"], contests, content["headlines"]
    )
