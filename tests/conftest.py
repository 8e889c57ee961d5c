"""What the tests of all packages share: one tiny data set, and a CPU that looks like four devices to TensorFlow."""

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import random
import re
import signal
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import google_crc32c
import hypothesis
import numpy as np
import pytest

from records.format import example, tfrecord
from records.format.frame import Frame, Sum64
from records.format.manifest import FORMAT_VERSION, MANIFEST_JSON, Data, Manifest, Shard, Source, Tokenizer
from records.tokenizer.artifact import TokenizerArtifact
from tests import processes

if TYPE_CHECKING:
    from records.storage.lease import Lease
    from tests.cloud.cloud import LocalCloud
    from trainer.config import TrainOptions

_ROOT = Path(__file__).parent.parent

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ["a", "the", "film", "plot", "was", "good", "bad", "long", "dull", "fine"]
WORDS += ["and", "but", "actor", "scene", "i", "we", "saw", "liked", "again", "never"]
PIECES = ("##s", "##ing", ".", ",", "[unused0]", "[unused1]")
LENGTH = 24


def _clean_environment() -> None:
    """Let the tests, and all that they start, have the same environment whoever starts them, and wherever.

    Make hands the options it was given on to every make below it.
    """
    described = re.search(r"^OPTIONS := (.*)$", (_ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert described
    names = {*described[1].split(), "MFLAGS", "GNUMAKEFLAGS", "TZ", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"}
    names |= {
        "PYTHON_COLORS",
        "PYTHONWARNINGS",
        "PYTHONIOENCODING",
        "PYTHONUNBUFFERED",
        "PYTHONOPTIMIZE",
        "PYTEST_ADDOPTS",
    }
    prefixes = ("MAKE", "HF_", "TF_", "XLA_", "JAX_", "KERAS_", "GOOGLE_", "GCE_", "GCS_", "CLOUDSDK_", "GRPC_")
    for name in list(os.environ):
        if name in names or name.startswith(prefixes) or name.lower().endswith("_proxy"):
            del os.environ[name]
    os.environ |= {
        "PYTHONFAULTHANDLER": "1",  # a process that hangs says where, once it is given up
        # What Google says of Pythons that end is not what a command says; whether it is said depends on the day.
        "PYTHONWARNINGS": ",".join(
            f"ignore:You are using a {which}:FutureWarning"
            for which in ("Python version", "non-supported Python version")
        ),
        "KERAS_BACKEND": "tensorflow",
        "CUDA_VISIBLE_DEVICES": "-1",  # what the tests compare to the bit is a CPU's
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "GRPC_VERBOSITY": "ERROR",  # a server that is stopped is news to it
        # TensorFlow's client of Google Cloud Storage is not to wait long before it tries again
        "GCS_RETRY_CONFIG_MAX_RETRIES": "3",
        "GCS_RETRY_CONFIG_INIT_DELAY_TIME_US": "1000",
        "GCS_RETRY_CONFIG_MAX_DELAY_TIME_US": "10000",
        "GCS_REQUEST_IDLE_TIMEOUT_SECS": "1",
    }


def _restore_signals() -> None:
    """Let signals do what they do in the foreground.

    In the background of a script SIGINT and SIGQUIT are ignored, and so they would be in all that the tests start.
    SIGHUP may stay so, which is what nohup is for.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGABRT, signal.SIGCHLD):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


_clean_environment()
_restore_signals()

# How long an example takes, or is sought, is up to what else the machine does.
hypothesis.settings.register_profile("remask", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("remask")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="run the tests marked slow, too")
    parser.addoption("--cloud-log", metavar="FILE", help="write what each test asked of the local cloud to a file")


def pytest_configure(config: pytest.Config) -> None:
    """Begin the log anew; processes of pytest-xdist only add to it."""
    if (path := config.getoption("--cloud-log")) and not hasattr(config, "workerinput"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text("")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say where the log is, and what is in it."""
    if path := config.getoption("--cloud-log"):
        lines = Path(path).read_text(encoding="utf-8").splitlines()
        asked = sum(line.startswith("  ") for line in lines)
        terminalreporter.write_line(f"{path}: {asked:,} requests to the local cloud, in {len(lines) - asked:,} tests")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip slow tests, unless they are asked for by `--run-slow` or by a `-m` of one's own."""
    if config.getoption("--run-slow") or config.getoption("-m"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: run with --run-slow, or -m slow"))


class _SplitCpu(importlib.abc.MetaPathFinder):
    """Lets TensorFlow see four CPUs from its import on, whoever imports it; sessions without it stay free of it."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:
        if name != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def run_and_split(module: types.ModuleType) -> None:
                run(module)
                (cpu,) = module.config.list_physical_devices("CPU")
                parts = [module.config.LogicalDeviceConfiguration()] * 4
                module.config.set_logical_device_configuration(cpu, parts)

            spec.loader.exec_module = run_and_split  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _SplitCpu())


@pytest.fixture(scope="session")
def _opened_cloud() -> "Iterator[LocalCloud]":
    from tests.cloud.cloud import LocalCloud

    with LocalCloud() as opened:
        yield opened


@pytest.fixture
def cloud(
    _opened_cloud: "LocalCloud", monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> "Iterator[LocalCloud]":
    """Give Google Cloud on loopback, empty but for a bucket `bucket`; also to clients in this process.

    Fails the test where anything else was asked for than what is on loopback.
    """
    for name, value in _opened_cloud.environment.items():
        monkeypatch.setenv(name, value)
    _opened_cloud.storage.create_bucket("bucket")
    leases = _recorded_leases(monkeypatch)
    yield _opened_cloud
    for each in leases:  # which would be renewed, in the buckets of the tests that follow
        each.leave()
        each._thread.join(30)
    _wait_for_clients()
    if "records.storage.gcs" in sys.modules:  # its client would look for this cloud in tests that have none
        sys.modules["records.storage.gcs"].client.cache_clear()
    if path := request.config.getoption("--cloud-log"):
        with open(path, "a", encoding="utf-8") as log:
            log.write("".join((f"{request.node.nodeid}\n", *(f"  {entry}\n" for entry in _opened_cloud.log))))
    refused = list(_opened_cloud.refused)
    _opened_cloud.reset()
    assert not refused, f"asked for what is not in the local cloud: {refused}"


def _recorded_leases(monkeypatch: pytest.MonkeyPatch) -> "list[Lease]":
    """Return a list to which each lease is added that is begun from now on."""
    from records.storage import lease

    begun: list[Lease] = []
    begin = lease.Lease.__init__

    def recorded(self: "Lease", *arguments: Any, **options: Any) -> None:
        begin(self, *arguments, **options)
        begun.append(self)

    monkeypatch.setattr(lease.Lease, "__init__", recorded)
    return begun


def _wait_for_clients() -> None:
    """Wait for what Google's clients do in the background, while it has this cloud to talk to.

    They would go on in the tests that follow, and draw from `random` there, how long to wait before they try again:
    hypothesis takes that for its own strategies' doing.
    """
    for thread in threading.enumerate():
        does = getattr(getattr(thread, "_target", None), "__module__", None) or type(thread).__module__
        if does.startswith("google."):
            thread.join(processes.LIMIT)
            assert not thread.is_alive(), f"{thread} of {does} does not end"


@pytest.fixture(scope="session")
def toy_tokenizer() -> TokenizerArtifact:
    """Return a word-piece tokenizer of 31 tokens."""
    vocabulary = {token: id_ for id_, token in enumerate((*SPECIALS, *WORDS, *PIECES))}
    description = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": vocabulary[token],
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for token in SPECIALS
        ],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "BertProcessing",
            "sep": ["[SEP]", vocabulary["[SEP]"]],
            "cls": ["[CLS]", vocabulary["[CLS]"]],
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    }
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 32}
    return TokenizerArtifact("toy", json.dumps(description).encode(), json.dumps(config).encode())


@pytest.fixture(scope="session")
def tiny_data_set(tmp_path_factory: pytest.TempPathFactory, toy_tokenizer: TokenizerArtifact) -> str:
    """Return the folder of a data set of 203 + 37 sequences of 24 tokens in 4 + 2 shards, from which a model can learn.

    A sequence is one or two segments; in each, every word foretells the next. Treat it as read-only.
    """
    folder = tmp_path_factory.mktemp("tiny_data_set")
    draw = random.Random(0)
    splits = {
        "train": tuple(
            _write_shard(folder, "train", number, 4, examples, draw) for number, examples in enumerate((50, 51, 51, 51))
        ),
        "validation": tuple(
            _write_shard(folder, "validation", number, 2, examples, draw) for number, examples in enumerate((18, 19))
        ),
    }
    toy_tokenizer.save(str(folder))
    source = Source("toy.csv", rows=240, documents=240, dropped={}, recoded=0, tokens_dropped=0)
    data = Data(LENGTH, "pack", 0.15, "", Tokenizer.of(toy_tokenizer), splits, (source,))
    manifest = Manifest(
        data, job={"package_version": "0", "options": {}, "created": "", "seconds": 0.0}, format_version=FORMAT_VERSION
    )
    (folder / MANIFEST_JSON).write_text(manifest.to_json(), encoding="utf-8")
    return str(folder)


@pytest.fixture(scope="session")
def tiny_shape(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a value of `model`: random weights, one layer of width 16, fit for the tiny data set."""
    folder = tmp_path_factory.mktemp("tiny_shape")
    config = {
        "model_type": "bert",
        "vocab_size": len(SPECIALS) + len(WORDS) + len(PIECES),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": LENGTH,
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return f"scratch:{folder}"


@pytest.fixture(scope="session")
def run_options(tmp_path_factory: pytest.TempPathFactory, tiny_data_set: str, tiny_shape: str) -> "TrainOptions":
    """Return the options of `trained_run`."""
    from trainer.config import TrainOptions

    return TrainOptions(
        data=tiny_data_set,
        run_dir=str(tmp_path_factory.mktemp("trained_run")),
        model=tiny_shape,
        train_steps=40,
        global_batch_size=16,
        eval_every=20,
        learning_rate=2e-2,
        warmup_steps=4,
        probes=("we saw the [MASK] again.",),
    )


@pytest.fixture(scope="session")
def trained_run(run_options: "TrainOptions") -> str:
    """Return the folder of a finished run of 40 steps. Treat it as read-only."""
    from trainer.train import train

    train(run_options)
    return run_options.run_dir


def _write_shard(folder: Path, split: str, number: int, shards: int, examples: int, draw: random.Random) -> Shard:
    sequences = [_sequence(draw) for _ in range(examples)]
    input_ids = np.array([row + [0] * (LENGTH - len(row)) for row in sequences])
    example_id = np.array(sorted(draw.getrandbits(63) for _ in sequences))
    file = f"{split}-{number:05}-of-{shards:05}.tfrecord"
    frame = Frame(LENGTH, vocab_size=len(SPECIALS) + len(WORDS) + len(PIECES))
    rows, checksum = example.encode(input_ids, example_id, frame), Sum64(frame)
    checksum.add(rows)
    with (folder / file).open("wb") as stream:
        tfrecord.write(stream, [rows.tobytes()])
    content = (folder / file).read_bytes()
    return Shard(
        file=file,
        examples=examples,
        segments=int((input_ids == SPECIALS.index("[CLS]")).sum()),
        tokens=int((input_ids != 0).sum()),
        bytes=len(content),
        crc32c=f"{google_crc32c.value(content):08x}",
        sum64=checksum.hexdigest(),
    )


def _sequence(draw: random.Random) -> list[int]:
    """Return one or two segments in which word `w` is followed by the one `w`'s number determines."""
    ids: list[int] = []
    for _ in range(draw.choice((1, 2))):
        word, ids = draw.randrange(len(WORDS)), [*ids, SPECIALS.index("[CLS]")]
        for _ in range(draw.randint(6, 10)):
            ids.append(len(SPECIALS) + word)
            word = (3 * word + 1) % len(WORDS)
        ids.append(SPECIALS.index("[SEP]"))
    return ids
