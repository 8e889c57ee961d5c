"""Import weight is architecture: what each module drags in, looked at in fresh interpreters.

TensorFlow costs 5 s and 670 MiB, Beam 3 s and 200 MiB. Help is to be instant, and a Beam worker must do without
TensorFlow.
"""

import ast
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
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
PACKAGES = ("pipelines", "records", "trainer")


def module(path: Path) -> str:
    """Return the name by which a source is imported."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


SOURCES = {module(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}
MODULES = sorted(name for name in SOURCES if not name.endswith(".__main__") and name not in PACKAGES)
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
clients = ("google.auth", "google.cloud.storage", "records.storage.gcs", "records.storage.credentials")
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
    assert not {"records.storage.gcs", "records.storage.credentials"} & called(
        "pipelines", "records", "--csv", "no/such/file", shows=SHOWS_CLIENTS
    )


def test_our_own_check_sees_a_client_of_the_cloud():
    assert {"google.auth", "records.storage.gcs"} <= called(
        "records", "verify", "--data", "gs://b/a", shows=SHOWS_CLIENTS
    )


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
    for path in (ROOT / package).rglob("*.py"):
        assert not set(imports(path)) & never, path


def test_only_the_reader_of_records_knows_tensorflow():
    found = [name for name, path in SOURCES.items() if name.startswith("records.") and "tensorflow" in imports(path)]
    assert found == ["records.format.reader"]


def our_imports(name: str) -> Iterator[str]:
    """Yield the modules of ours that a module imports anywhere, within functions too, or by its name in a text."""
    for node in ast.walk(ast.parse(SOURCES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in SOURCES)
        elif isinstance(node, ast.ImportFrom) and node.module in SOURCES:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (each if each in SOURCES else node.module for each in inside)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and ":" in node.value:
            yield from {node.value.partition(":")[0]} & set(SOURCES)


def wing(name: str) -> str:
    """Return the wing that a module belongs to: its folder in its package; one that is in none is its own.

    >>> wing("records.format.reader"), wing("records.paths"), wing("records.storage")
    ('records.format', 'records.paths', 'records.storage')
    """
    return ".".join(name.split(".")[:2])


def arrows(of: Callable[[str], str]) -> dict[str, set[str]]:
    """Return which groups of modules import which others."""
    found: dict[str, set[str]] = {}
    for name in SOURCES:
        others = {of(each) for each in our_imports(name)} - {of(name), *PACKAGES}
        found.setdefault(of(name), set()).update(others)
    return found


@pytest.mark.parametrize("of", [wing, str], ids=["wings", "modules"])
def test_there_are_no_circles(of):
    graph = arrows(of)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
    assert len(graph) > len(PACKAGES)


def test_our_own_check_sees_a_late_import_and_a_command():
    assert "trainer.commands.show" in our_imports("trainer.launch")
    assert "trainer.launch" in our_imports("trainer.__main__")


def test_a_wing_holds_several_modules():
    """A folder of one file would be a file."""
    held = Counter(wing(name) for name in SOURCES if name.count(".") > 1)
    assert min(held.values()) > 1


def test_commands_are_known_to_what_launches_them_alone():
    """What several of them need lies below them."""
    known = {name for name in SOURCES if any(wing(each) == "trainer.commands" for each in our_imports(name))}
    assert known == {"trainer.launch"}
