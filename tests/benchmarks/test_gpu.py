"""The benchmark on a GPU, but for its contenders: those here only say what they would have measured."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from benchmarks import gpu, gpu_result, report
from benchmarks.config import GpuBenchOptions, ReportOptions
from benchmarks.gpu import Contender
from benchmarks.gpu_result import Absent
from records.console.command_line import parse_options
from records.errors import RemaskError
from tests import processes
from tests.benchmarks.test_turns import gone

ROOT = Path(__file__).parent.parent.parent
MADE = "tests.benchmarks.made"
CEILING = Contender("a product", f"{MADE}:multiplies")
CONTENDERS = {
    "remask": Contender("remask", f"{MADE}:trains", {"speed": 40}),
    "masked": Contender("they", f"{MADE}:trains", {"speed": 20}),
    "everywhere": Contender("they, slower", f"{MADE}:trains", {"speed": 10}),
}
WORDS = ("ceiling", "remask", "masked", "everywhere")


def options(folder: Path, **given: object) -> GpuBenchOptions:
    chosen = {
        "device": "cpu",
        "model": "tiny",
        "length": (16, 32),
        "tokens": 64,
        "contender": WORDS,
        "batches": "random",
    }
    return GpuBenchOptions(**{**chosen, "out": str(folder), "wheels": str(folder / "wheels"), **given})


def left(folder: Path) -> gpu_result.GpuResult:
    return gpu_result.read(folder / gpu_result.FILE)


def test_all_figures_are_printed_and_left_in_a_file(tmp_path, capsys):
    given = gpu.run(options(tmp_path), CONTENDERS, CEILING)
    found = left(tmp_path)
    assert found == given
    assert [(one.length, one.rows, one.contender) for one in found.figures] == [
        (length, rows, name)
        for length in (16, 32)
        for name in ("remask", "they", "they, slower")
        for rows in ("padded", "packed")
    ]
    assert found.figures[0].rate("steps") == 40
    assert found.figures[0].rate() == 4 * 40  # 64 tokens a step make 4 sequences of 16
    assert found.figures[0].rate("tokens") == 4 * 40 * 8
    assert found.absent == ()
    assert (found.peak_flops, found.ceiling_flops) == (989e12, 800e12)
    assert found.versions == {"jax": "0.11", "torch": "2"}
    said = capsys.readouterr().out
    lines = [line.split() for line in said.splitlines() if re.match(r" +(16|32)  ", line)]
    assert [line[-1] for line in lines] == ["1.00", "1.00", "2.00", "2.00", "4.00", "4.00"] * 2
    assert "a product, 512 a side: 800 TFLOP/s, 81% of its data sheet" in said
    assert "headline gpu_padded_step_vs_peer 2\n" in said
    assert "not of real text: random words" in said
    assert not (tmp_path / gpu.LOG).exists()


def test_mfu_is_the_same_work_for_all(tmp_path):
    found = gpu.run(options(tmp_path, length=(128,), tokens=128, peak_tflops=1.0), CONTENDERS, CEILING)
    # tiny, 30,522 words, 20 of 128 tokens to predict: 6 * (2 * (128 * (4 * 128² + 2 * 128 * 512) + 2 * 128² * 128)
    # + 20 * (128² + 128 * 30522)) FLOP
    flops = 6 * (2 * (128 * (4 * 128**2 + 2 * 128 * 512) + 2 * 128**2 * 128) + 20 * (128**2 + 128 * 30522))
    by_name = {one.contender: found.mfu(one) for one in found.figures if one.rows == "padded"}
    assert by_name["remask"] == pytest.approx(40 * flops / 1e12)
    assert by_name["they"] == pytest.approx(20 * flops / 1e12)


def test_what_is_missing_is_named_with_its_reason_and_the_rest_goes_on(tmp_path, capsys):
    ill = {**CONTENDERS, "masked": CONTENDERS["masked"]._replace(arguments={"speed": 1, "gives": 1, "then": "fails"})}
    gpu.run(options(tmp_path, length=(16,)), ill, CEILING)
    reason = "MemoryError: out of memory on device: asked for 9 GiB"
    found = left(tmp_path)
    assert found.absent == (Absent("they", 16, "packed", reason),)
    assert len(found.figures) == 5
    said = capsys.readouterr().out
    assert re.search(rf"^ +16  packed  they +{reason}$", said, re.MULTILINE)
    assert f"what those said that gave no figure is in {tmp_path / gpu.LOG}" in said
    assert "Traceback" in (tmp_path / gpu.LOG).read_text()


def test_a_run_without_any_figure_fails_and_says_why(tmp_path):
    ill = {"remask": CONTENDERS["remask"]._replace(arguments={"speed": 1, "then": "fails to prepare"})}
    with pytest.raises(RemaskError, match=r"no figure came, in .* s: ModuleNotFoundError: No module named 'jax'; see "):
        gpu.run(options(tmp_path), ill, CEILING)
    assert [one.rows for one in left(tmp_path).absent] == ["padded", "packed"] * 2


def test_the_speed_of_the_device_alone_may_be_asked_for(tmp_path):
    assert gpu.run(options(tmp_path, contender=("ceiling",)), CONTENDERS, CEILING).ceiling_flops == 800e12
    ill = Contender("a product", f"{MADE}:turns", {"then": "exits"})
    with pytest.raises(RemaskError, match=r"no figure came, in .*; see "):
        gpu.run(options(tmp_path, contender=("ceiling",)), CONTENDERS, ill)


KILLED = f"""
import sys
from benchmarks import gpu
from tests.benchmarks import test_gpu
contenders = dict(test_gpu.CONTENDERS)
contenders["masked"] = gpu.Contender("they", "{MADE}:trains", dict(speed=1, gives=1, then="hangs"))
gpu.run(test_gpu.options(test_gpu.Path(sys.argv[1]), length=(16,)), contenders, test_gpu.CEILING)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_killed_has_left_what_it_had_and_no_process(tmp_path, number):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with processes.started(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if re.match(" +16  padded  they ", line):
                break
        ours = _descendants(process.pid)
        assert ours
        process.send_signal(number)
        assert process.wait(processes.LIMIT) == (143 if number == signal.SIGTERM else -9)
        assert _all_end(ours)
    assert [(one.contender, one.rows) for one in left(tmp_path).figures] == [
        ("remask", "padded"),
        ("remask", "packed"),
        ("they", "padded"),
    ]


def test_the_command_says_what_there_is_no_gpu_for(tmp_path):
    """Without JAX, or with JAX and no GPU that it may see, there is no figure, and the reason is what is missing."""
    command = [sys.executable, "-m", "benchmarks", "gpu", "--contender", "remask", "--out", str(tmp_path)]
    done = processes.run(
        [*command, "--length", "128", "--tokens", "128", "--model", "tiny", "--batches", "random"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert re.search(r"^error: no figure came, in \d+ s: (ModuleNotFound|Runtime)Error: .*", done.stderr, re.MULTILINE)


def test_it_needs_neither_numpy_nor_a_framework_before_it_is_asked_for():
    program = (
        "import sys, benchmarks.__main__; print({'tensorflow', 'keras', 'jax', 'torch', 'numpy'} & set(sys.modules))"
    )
    done = processes.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_what_measures_needs_no_more_than_a_bare_machine_has():
    shows = "import sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"

    def loaded(program: str) -> set[str]:
        command = [sys.executable, "-c", f"{program}\n{shows}"]
        return set(processes.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())

    found = loaded("import benchmarks.gpu, benchmarks.gpu_jax, benchmarks.gpu_torch")
    assert found - sys.stdlib_module_names - loaded("import numpy, numpy.random") == {
        "benchmarks",
        "records",
        "trainer",
    }


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 'NVIDIA H100 80GB HBM3, 580.159.04'; echo 'another, 1'", "NVIDIA H100 80GB HBM3 (driver 580.159.04)"),
        ("echo 'NVIDIA-SMI has failed, because'; exit 9", ""),
        ("", ""),
    ],
)
def test_the_card_is_what_nvidias_tool_says(tmp_path, monkeypatch, script, expected):
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert gpu.card() == expected


def test_options():
    chosen = parse_options(GpuBenchOptions, ["--length", "32", "64", "--contender", "remask", "masked"], prog="gpu")
    assert (chosen.length, chosen.contender) == ((32, 64), ("remask", "masked"))
    assert set(gpu.CONTENDERS) | {"ceiling"} == set(GpuBenchOptions().contender)
    assert GpuBenchOptions().folder == "benchmarks/results"
    assert GpuBenchOptions(device="cpu").folder == "out/gpu"
    for wrong in ({"length": (600,)}, {"tokens": 0}, {"seconds": 0.0}, {"limit": float("inf")}, {"peak_tflops": -1.0}):
        (name,) = wrong
        with pytest.raises(RemaskError, match=f"^{name}: found "):
            GpuBenchOptions(**wrong)


def test_batches_that_are_asked_for_have_to_be_there(tmp_path):
    with pytest.raises(RemaskError, match=r"none\.npz: no batches there .*; make them with 'make bench-gpu-carry"):
        gpu.run(options(tmp_path, batches=str(tmp_path / "none.npz")), CONTENDERS, CEILING)


def test_what_was_carried_along_reaches_the_contenders(tmp_path, capsys):
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    with zipfile.ZipFile(wheels / "carried_along-1.0-py3-none-any.whl", "w") as wheel:
        source = "from tests.benchmarks.made import trains\nassert 'carried' not in __file__.partition('site')[0]\n"
        wheel.writestr("carried_along.py", source)
    contenders = {"remask": Contender("remask", "carried_along:trains", {"speed": 1})}
    found = gpu.run(options(tmp_path, length=(16,), contender=("remask",)), contenders, CEILING)
    assert len(found.figures) == 2
    assert "carried along, and not on this machine: carried_along-1.0-py3-none-any.whl" in capsys.readouterr().err


def test_the_report_has_a_table_of_it(tmp_path, capsys):
    ill = {**CONTENDERS, "masked": CONTENDERS["masked"]._replace(arguments={"speed": 20, "gives": 1, "then": "exits"})}
    gpu.run(options(tmp_path, length=(16,), commit="abc"), ill, CEILING)
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.main(ReportOptions(results=str(tmp_path), readme=str(readme)))
    text = readme.read_text()
    assert text.startswith(f"before\n{report.BEGIN}\nSteps of 64 tokens of BERT-tiny on one NVIDIA H100 80GB HBM3, ")
    assert "\n| 16, padded | remask | 160 (160 to 160) | 1.28 k | 0.0% | 2.0 GB | 1.00 |\n" in text
    assert "\n| 16, padded | they | 80.0 (80.0 to 80.0) | 640 | 0.0% | 2.0 GB | 2.00 |\n" in text
    assert "\nMissing: they, 16 packed: exited with 3 on the device.\n" in text
    assert "jax 0.11, torch 2, at commit abc." in text
    assert "MFU of 989 TFLOP/s; a product of large matrices reaches 800. " in text
    assert capsys.readouterr().out.splitlines()[-1] == f"made the table in {readme}, from 1 benchmarks"


def test_a_damaged_result_is_refused_by_name(tmp_path):
    gpu.run(options(tmp_path, length=(16,)), CONTENDERS, CEILING)
    path = tmp_path / gpu_result.FILE
    content = json.loads(path.read_text())
    content["result"]["figures"][0]["loss"] = "low"
    path.write_text(json.dumps(content))
    with pytest.raises(RemaskError, match=r'gpu\.json: result\.figures\[0\]\.loss: found "low", .*make bench-gpu'):
        report.read_gpu(str(tmp_path))


def test_without_a_result_the_report_is_as_before(tmp_path):
    assert report.read_gpu(str(tmp_path)) is None


def _descendants(pid: int) -> list[int]:
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += [int(child), *_descendants(int(child))]
    return found


def _all_end(pids: list[int], *, within: float = 60.0) -> bool:
    until = time.monotonic() + within
    while time.monotonic() < until:
        if all(gone(pid) for pid in pids):
            return True
        time.sleep(0.01)
    return False
