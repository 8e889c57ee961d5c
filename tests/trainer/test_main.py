import sys
from pathlib import Path

import pytest

from tests import processes
from trainer.__main__ import COMMANDS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("words", [["--help"], *([command, "--help"] for command in COMMANDS)])
def test_help_needs_no_tensorflow(words):
    code = (
        "import sys; sys.argv = ['trainer', *sys.argv[1:]]\n"
        "import runpy\n"
        "try: runpy.run_module('trainer', run_name='__main__')\n"
        "except SystemExit as left: assert left.code == 0, left.code\n"
        "heavy = {'tensorflow', 'keras', 'numpy', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = processes.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: python -m trainer")


def test_bad_option_is_refused_without_tensorflow():
    done = processes.run(
        [sys.executable, "-X", "importtime", "-m", "trainer", "train", "--learning_rate", "0"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 1
    assert done.stderr.endswith("error: learning_rate: found 0.0, expected more than 0\n")
    assert "tensorflow" not in done.stderr
