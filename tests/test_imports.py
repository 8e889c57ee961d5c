"""Import weight is architecture: what each module drags in, looked at in fresh interpreters.

TensorFlow costs 5 s and 670 MiB, Beam 3 s and 200 MiB. Help is to be instant, and a Beam worker must do without
TensorFlow.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import processes

ROOT = Path(__file__).parent.parent
HEAVY = {
    "apache_beam",
    "google_crc32c",
    "huggingface_hub",
    "keras",
    "numpy",
    "pandas",
    "pydantic",
    "safetensors",
    "tensorflow",
    "tokenizers",
    "torch",
    "tqdm",
    "transformers",
}
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in ("pipelines", "records", "trainer")
    for path in (ROOT / package).glob("*.py")
    if path.name not in ("__init__.py", "__main__.py")
)
SHOWS = """
import runpy, sys
loaded = lambda: print(*sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


def run(program: str, *, shows: str = "") -> set[str]:
    """Return the top-level packages that a program has imported when it is done; or what else is to be shown."""
    done = processes.run(
        [sys.executable, "-c", SHOWS + shows + program + "\nloaded()"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={
            "PATH": "/usr/bin:/bin",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "CUDA_VISIBLE_DEVICES": "-1",
            "HOME": "/nonexistent",
            "GCE_METADATA_HOST": "127.0.0.1:1",  # nobody is asked whether this is one of Google's machines
        },
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split("\n")[-2].split())


def imported_by(*modules: str) -> set[str]:
    return run("import " + ", ".join(modules))


def called(*argv: str, shows: str = "") -> set[str]:
    return run(
        f"sys.argv = {list(argv)!r}\n"
        f"try: runpy.run_module({argv[0]!r}, run_name='__main__', alter_sys=True)\n"
        f"except SystemExit as end: pass",
        shows=shows,
    )


def test_our_own_checks_see_what_is_imported():
    assert {"numpy", "records"} <= imported_by("numpy", "records")
    assert "numpy" not in imported_by("records")


@pytest.mark.parametrize("module", ["pipelines.config", "records.config", "trainer.config"])
def test_options_need_the_standard_library_alone(module):
    found = imported_by(module)
    assert not found & HEAVY
    assert found - {"pipelines", "records", "trainer", "__main__"} <= sys.stdlib_module_names | editable()


def editable() -> set[str]:
    """Return what the installation in development mode imports at each start of Python."""
    return run("") - sys.stdlib_module_names


@pytest.mark.parametrize(
    "argv",
    [
        ("pipelines", "--help"),
        ("pipelines", "records", "--help"),
        ("records", "verify", "--help"),
        ("trainer", "train", "--help"),
        ("trainer", "trian"),
        ("pipelines", "records", "--max_seq_length", "1"),
    ],
    ids=" ".join,
)
def test_help_and_refusals_need_the_standard_library_alone(argv):
    assert not called(*argv) & HEAVY


def test_pipelines_need_neither_tensorflow_nor_the_trainer():
    modules = [module for module in MODULES if module.startswith("pipelines.")]
    found = imported_by(*modules)
    assert "apache_beam" in found
    assert not found & {"tensorflow", "keras", "trainer", "transformers", "torch"}


def test_the_trainer_needs_neither_beam_nor_pipelines():
    modules = [module for module in MODULES if module.startswith("trainer.")]
    found = imported_by(*modules)
    assert "tensorflow" in found
    assert not found & {"apache_beam", "pipelines", "transformers", "torch"}


def test_records_need_neither_and_no_tensorflow():
    modules = [module for module in MODULES if module.startswith("records.")]
    assert not imported_by(*modules) & {
        "apache_beam",
        "tensorflow",
        "keras",
        "pipelines",
        "trainer",
        "transformers",
        "torch",
    }


SHOWS_CLIENTS = """
clients = ("google.auth", "google.cloud.storage", "records.gcs", "records.credentials")
loaded = lambda: print(*(name for name in clients if name in sys.modules), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "argv",
    [
        ("records", "verify", "--data", "no/such/folder"),
        ("trainer", "train", "--data", "no/such/folder"),
        ("trainer", "fill-mask", "--model", "no/such/folder", "--text", "[MASK]"),
    ],
    ids=" ".join,
)
def test_nobody_loads_a_client_of_the_cloud_who_has_no_use_for_it(argv):
    assert not called(*argv, shows=SHOWS_CLIENTS)


def test_beam_loads_googles_libraries_by_itself_and_we_do_not_use_them():
    assert not {"records.gcs", "records.credentials"} & called(
        "pipelines", "records", "--csv", "no/such/file", shows=SHOWS_CLIENTS
    )


def test_our_own_check_sees_a_client_of_the_cloud():
    assert {"google.auth", "records.gcs"} <= called("records", "verify", "--data", "gs://b/a", shows=SHOWS_CLIENTS)


def test_without_credentials_a_bucket_is_refused_before_tensorflow_is_loaded():
    assert not called("trainer", "train", "--data", "gs://bucket/records") & {"tensorflow", "keras"}


def test_a_data_set_is_opened_and_refused_without_tensorflow():
    assert not called("records", "verify", "--data", "no/such/folder") & {"tensorflow", "keras", "apache_beam"}


def imports(path: Path) -> Iterator[str]:
    """Yield the packages that a source imports anywhere, within functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield (node.module or "").partition(".")[0]


@pytest.mark.parametrize(
    ("package", "never"),
    [
        ("pipelines", {"trainer", "tensorflow", "keras", "torch", "transformers"}),
        ("records", {"pipelines", "trainer", "apache_beam", "keras", "torch", "transformers"}),
        ("trainer", {"pipelines", "apache_beam", "torch", "transformers"}),
    ],
)
def test_arrows(package, never):
    """The rule is `pipelines -> records <- trainer`, also for what is imported late."""
    for path in (ROOT / package).glob("*.py"):
        assert not set(imports(path)) & never, path.name


def test_only_the_reader_of_records_knows_tensorflow():
    assert [path.name for path in (ROOT / "records").glob("*.py") if "tensorflow" in imports(path)] == ["reader.py"]
