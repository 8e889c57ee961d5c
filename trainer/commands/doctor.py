"""Looks at all that a run would need, and says of each what it is, or what to do about it.

Nothing is trained or written. What one check finds does not keep the others from looking.
"""

import dataclasses
import errno
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from records import paths, storage
from records.console import command_line
from records.console.command_line import make_option
from records.errors import RemaskError
from records.format.reader import DataSet, open_data_set
from trainer.config import GLOBAL_BATCH_SIZE, DoctorOptions, ModelConfig, TrainOptions, is_remote_tpu, usual_dtype
from trainer.devices import versions
from trainer.input import memory
from trainer.start import start_tensorflow

_Found = TypeVar("_Found")

_NEEDS = ("remask", "tensorflow", "tensorflow-tpu", "keras", "apache-beam", "google-cloud-storage")
_NAMED_BY_MAKE = ("data", "model", "run_dir", "tpu", "zone", "project")
_CHECKPOINT_BYTES = 12  # of a parameter: its value and its two moments
_TRAIN_BYTES = 16  # and its gradient
_CHECKPOINTS = 4  # the two newest, the best, and one that is being written


class Machines(NamedTuple):
    """What would train."""

    hosts: int
    replicas: int  # of all of them; 0 where that is not known


class Finding(NamedTuple):
    """What one check found."""

    about: str
    text: str
    is_ok: bool = True

    def __str__(self) -> str:
        return f"{'ok ' if self.is_ok else 'NOT'}  {self.about:<12} {self.text}"


def main(options: DoctorOptions) -> int:
    """Print a line for each check; exit with 1 where something is to be done."""
    wrong = 0
    for finding in findings(options):
        print(finding, flush=True)
        wrong += not finding.is_ok
    print(f"{wrong} to mend; each line says how" if wrong else f"all is well; next: {_next(options)}")
    return int(wrong > 0)


def _next(options: DoctorOptions) -> str:
    """Return the command that trains what was looked at: with the options of the run, where there is one."""
    from trainer.run import runs

    found = runs.to_resume(_run_dir(options), say=_nothing) if options.data or options.run_dir else None
    run = found.run.options if found else TrainOptions()
    model, usual = options.model or run.model, usual_dtype(options.tpu)
    asked = {
        "DATA": options.data or (run.data if found else ""),
        "MODEL": "" if model == TrainOptions.model else model,
        "RUN": options.run_dir,
        "TPU": options.tpu,
        "ZONE": options.zone,
        "PROJECT": options.project,
    }
    others = dataclasses.replace(run, dtype="" if run.dtype == usual else run.dtype)
    asked["ARGS"] = shlex.join(command_line.arguments(others, but=_NAMED_BY_MAKE))
    return " ".join(["make train", *(make_option(name, value) for name, value in asked.items() if value)])


def _nothing(line: str) -> None:
    """Say nothing: a finding has."""


def findings(options: DoctorOptions) -> Iterator[Finding]:
    """Yield what the checks find: the quick ones first, for TensorFlow may be what is wrong."""
    if options.run_dir and not options.data:
        data, finding = _guarded("run", _begun, options.run_dir)
        if data or not finding.is_ok:
            yield finding
        options = dataclasses.replace(options, data=data or "")
    yield from _versions()
    for bucket in dict.fromkeys(paths.parts(path)[0] for path in _places(options) if storage.is_remote(path)):
        yield _said("bucket", _bucket, bucket)
    far: Machines | None = None
    if is_remote_tpu(options.tpu):
        far, finding = _guarded("tpu", _tpu, options)
        yield finding
        for path in _places(options):
            if not storage.is_remote(path):
                yield Finding("paths", f"{path} is on this disk, which TPU {options.tpu} cannot see", is_ok=False)
    data_set, config = None, None
    if options.data:
        data_set, finding = _guarded("data", _data, options.data)
        yield finding
    here, accelerator = _guarded("accelerator", _accelerator, options.tpu)
    yield accelerator
    machines = far if is_remote_tpu(options.tpu) else here
    if data_set is not None and machines:
        yield _said("shares", _shares, data_set, machines)
    if data_set is not None and accelerator.is_ok:
        config, finding = _guarded("model", _model, options, data_set)
        yield finding
    if config is not None:
        read = None
        if not is_remote_tpu(options.tpu):  # whose own hosts read
            read, finding = _guarded("input", _input, data_set)
            yield finding
        yield from _room(options, config, read=read or 0)


def _places(options: DoctorOptions) -> list[str]:
    return [path for path in (options.data, options.run_dir) if path]


def _guarded(about: str, look: Callable[..., tuple[_Found, str]], *at: Any) -> tuple[_Found | None, Finding]:
    """Return what a look found and what to say of it; an error is what is to be mended."""
    try:
        found, text = look(*at)
    except RemaskError as error:
        return None, Finding(about, str(error), is_ok=False)
    return found, Finding(about, text)


def _said(about: str, look: Callable[..., str], *at: Any) -> Finding:
    """Return what a look has to say; an error is what is to be mended."""
    return _guarded(about, lambda: (None, look(*at)))[1]


def _versions() -> Iterator[Finding]:
    held = versions.installed()
    extras = ("tpu",) if "tensorflow-tpu" in held else ("train",)
    wrong = list(versions.conflicts(held, of=_NEEDS, extras=extras))
    for text in wrong:
        yield Finding("versions", f"{text}; install again with 'make setup'", is_ok=False)
    if not wrong:
        yield Finding("versions", ", ".join(f"{name} {held[name].version}" for name in versions.SHOWN if name in held))


def _bucket(bucket: str) -> str:
    from records.storage import gcs

    return f"gs://{bucket}: {gcs.check_permissions(bucket)} may read and write"


def _tpu(options: DoctorOptions) -> tuple[Machines, str]:
    from trainer.devices import tpu_api

    hosts, node = tpu_api.located(options.tpu, zone=options.zone, project=options.project)
    found = Machines(len(hosts), node.replicas if node else 0)
    return found, f"{options.tpu} is ready: {_counted(len(hosts), 'host')}, at {', '.join(hosts)}"


def _data(folder: str) -> tuple[DataSet, str]:
    data_set = open_data_set(folder)
    made = data_set.manifest
    held_out = made.why_empty("validation") or f"{made.examples('validation'):,} held out"
    return data_set, (
        f"{folder}: {made.examples('train'):,} sequences of {data_set.max_seq_length} in "
        f"{len(made.data.splits['train'])} shards, {held_out}"
    )


def _model(options: DoctorOptions, data_set: DataSet) -> tuple[ModelConfig, str]:
    """Return the model that would be trained: that of the run, where there is one to be continued."""
    from trainer.models import pretrained, tensors
    from trainer.run import checks, export, runs

    run_dir, said = _run_dir(options), list[str]()
    if found := runs.to_resume(run_dir, say=said.append):
        run, step = found.run, found.step
        if run.manifest != data_set.manifest.digest():
            raise RemaskError(f"{run_dir}: holds a run on other data, {run.options.data}; give another RUN")
        if options.model not in ("", run.options.model):
            raise RemaskError(
                f"{run_dir}: holds a run of model {run.options.model}, asked for {options.model}; give "
                f"{make_option('MODEL', run.options.model)} to continue it, or another RUN"
            )
        checks.check_data(data_set, run.model, name=run.options.model)
        checks.check_split(data_set, "train")
        does = f"goes on after step {step}"
        if step == run.options.train_steps:
            is_final = export.is_final(runs.export(run_dir), found)
            does = f"is finished, after {step} steps" + ("" if is_final else "; only its export is not made yet")
        text = f"{run.options.model}: {run.model.parameters:,} parameters, of the run in {run_dir}, which {does}"
        return run.model, ". ".join([text, *said])
    name = options.model or TrainOptions.model
    start = pretrained.find(name, data=data_set.tokenizer)
    config = start.config
    if start.weights and not storage.is_remote(start.weights):  # all of it would have to be fetched
        with tensors.opened(start.weights):
            pass
    checks.check_data(data_set, config, name=name)
    checks.check_split(data_set, "train")
    return config, f"{name}: {config.parameters:,} parameters, and the tokenizer of the records"


def _run_dir(options: DoctorOptions) -> str:
    """Return the folder of the run, as `make train` names it."""
    return options.run_dir or f"{options.data.rstrip('/')}-run"


def _begun(run_dir: str) -> tuple[str, str]:
    """Return the data of the run in a folder, "" where there is none yet."""
    _start_tensorflow()  # or the next line would, and let it say all that it has to say
    from trainer.run import runs

    found = runs.to_resume(run_dir, say=_nothing)
    return (found.run.options.data, f"{run_dir}: a run on {found.run.options.data}") if found else ("", "")


def _start_tensorflow() -> None:
    try:
        start_tensorflow()
    except Exception as error:  # a broken installation raises what it likes
        raise RemaskError(f"TensorFlow cannot be imported ({error}); install again with 'make setup'") from error


def _accelerator(tpu: str) -> tuple[Machines, str]:
    _start_tensorflow()
    import tensorflow as tf

    from trainer.devices import workers
    from trainer.engines import accelerator

    if tpu == "local":
        replicas = accelerator.choose_strategy(tpu=tpu).num_replicas_in_sync
        return Machines(1, replicas), f"TPU of this machine: {_counted(replicas, 'replica')}"
    if tpu:
        return Machines(1, 1), f"TPU {tpu}; nothing is computed on this machine"
    hosts = len(workers.place().addresses)
    for kind in ("TPU", "GPU"):
        if found := tf.config.list_physical_devices(kind):
            return Machines(hosts, hosts * len(found)), f"{len(found)} {kind}"
    return Machines(hosts, hosts), f"none: training runs on {os.cpu_count()} CPU cores"


def _shares(data_set: DataSet, machines: Machines) -> str:
    """Return what each machine reads and each replica gets.

    Raises:
        RemaskError: the sequences, or those of a batch, are not enough for the replicas or cannot be dealt out evenly.
    """
    from trainer.run import checks

    shards, examples = data_set.manifest.data.splits["train"], data_set.manifest.examples("train")
    megabytes = sum(shard.bytes for shard in shards) / 1e6
    read = f"{_counted(len(shards), 'shard')}, {megabytes:,.1f} MB an epoch, read by {_each(machines.hosts, 'host')}"
    replicas = machines.replicas
    if not replicas:
        return f"{read}; how many replicas there are, addresses do not tell"
    if examples < replicas:
        raise RemaskError(
            f"{data_set.folder}: {_counted(examples, 'sequence')} for {replicas} replicas; make the records again from "
            f"more text"
        )
    try:
        checks.check_batch_size(GLOBAL_BATCH_SIZE, replicas=replicas)
    except RemaskError as error:
        raise RemaskError(f"{error}; give ARGS=--per_replica_batch_size=") from None
    part = GLOBAL_BATCH_SIZE // replicas
    return f"{read}; {_each(replicas, 'replica')} gets {part} of a batch of {GLOBAL_BATCH_SIZE}"


def _each(number: int, what: str) -> str:
    """Return each of a number of things.

    >>> _each(1, "host"), _each(4, "host")
    ('the one host', 'each of 4 hosts')
    """
    return f"the one {what}" if number == 1 else f"each of {_counted(number, what)}"


def _counted(number: int, what: str) -> str:
    """Return a number of things.

    >>> _counted(1, "host"), _counted(1200, "host")
    ('1 host', '1,200 hosts')
    """
    return f"{number:,} {what}{'s' if number != 1 else ''}"


def _input(data_set: DataSet) -> tuple[int, str]:
    from trainer.input.data import most_memory
    from trainer.run import checks

    together = TrainOptions.shuffle_examples
    checks.check_memory(data_set, shuffle_examples=together, free=memory.available())
    needed = most_memory(data_set, together)
    return needed, f"{together:,} sequences are shuffled together, which takes up to {needed / memory.GIB:,.2f} GiB"


def _room(options: DoctorOptions, config: ModelConfig, *, read: int) -> Iterator[Finding]:
    """Yield whether the run's checkpoints have room on its disk, and its model beside what is read in memory."""
    count = config.parameters
    if options.run_dir and not storage.is_remote(options.run_dir):
        yield _said("disk", _disk, options.run_dir, count * _CHECKPOINT_BYTES * _CHECKPOINTS)
    if (free := memory.available()) is not None:
        yield _said("memory", _enough, "this machine", free, count * _TRAIN_BYTES + read)


def _disk(run_dir: str, needed: int) -> str:
    """Return what room there is for a run.

    Raises:
        RemaskError: too little, or its folder cannot be made there.
    """
    folder = Path(run_dir).absolute()
    held = next(each for each in (folder, *folder.parents) if storage.exists(str(each)))
    if not held.is_dir():
        raise RemaskError(f"{held}: found a file, expected a folder, or nothing yet; give another RUN")
    if not os.access(held, os.W_OK | os.X_OK):
        raise storage.explained(str(held), PermissionError(errno.EACCES, "permission denied"))
    return _enough(str(held), shutil.disk_usage(held).free, needed)


def _enough(where: str, free: int, needed: int) -> str:
    text = f"{where} has {free / memory.GIB:,.1f} GiB free, a run takes {needed / memory.GIB:,.1f} GiB"
    if free < needed:
        raise RemaskError(f"{text}: free some, or choose a smaller model")
    return text
