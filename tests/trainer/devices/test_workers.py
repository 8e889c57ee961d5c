"""Two real processes that train together on loopback, held against one; and what each process knows of the others."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from records.errors import RemaskError
from tests import ports, processes
from tests.said import must_name
from trainer.config import ModelConfig, TrainOptions
from trainer.devices.workers import ALONE, Place, Workers, place
from trainer.engines.accelerator import choose_strategy
from trainer.run import checkpoint
from trainer.run.checkpoint import Run
from trainer.train import train

ROOT = Path(__file__).parents[3]
HOW = (
    'TF_CONFIG=\'{"cluster": {"worker": ["10.0.0.2:2222", "10.0.0.3:2222"]}, "task": {"type": "worker", "index": 0}}\'',
    "another index for each",
)
ADDRESSES = "expected the addresses of all workers"


RUN = Run(TrainOptions(), "abc", ModelConfig(31), 8)


def tf_config(job="worker", index=0, **cluster):
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": job, "index": index}})}


@pytest.mark.parametrize("environment", [{}, {"TF_CONFIG": ""}, {"TF_CONFIG": "{}"}, tf_config(worker=["a:1"])])
def test_a_process_is_alone_where_no_other_is_named(environment):
    assert place(environment) == ALONE
    assert ALONE.alone
    assert ALONE.leads


def test_places():
    assert place(tf_config(index=1, worker=["a:1", "b:2"])) == Place(1, ("a:1", "b:2"))
    assert place(tf_config("chief", 0, chief=["c:3"], worker=["a:1"])) == Place(0, ("c:3", "a:1"))
    assert place(tf_config("worker", 0, chief=["c:3"], worker=["a:1"])) == Place(1, ("c:3", "a:1"))
    assert not Place(1, ("a:1", "b:2")).leads


@pytest.mark.parametrize(
    ("environment", "parts"),
    [
        ({"TF_CONFIG": "worker"}, ("TF_CONFIG:", "found worker", ADDRESSES, *HOW)),
        (
            {"TF_CONFIG": '{"cluster": {"worker": ["a:1", "b:1"]}}'},
            ("TF_CONFIG:", 'found {"cluster": {"worker": ["a:1", "b:1"]}}', ADDRESSES, *HOW),
        ),
        (
            tf_config("ps", 0, ps=["a:1"], worker=["b:1"]),
            ("TF_CONFIG:", "found a task ps", "expected chief and worker alone", *HOW),
        ),
        (tf_config(index=2, worker=["a:1", "b:1"]), ("TF_CONFIG:", "found worker 2 of 2", "counted from 0", *HOW)),
    ],
)
def test_what_is_no_cluster_of_ours_is_refused(environment, parts):
    with pytest.raises(RemaskError) as refused:
        place(environment)
    must_name(str(refused.value), *parts)


@pytest.mark.parametrize("name", ["tpu", "devices"])
def test_workers_take_what_their_machines_have(name):
    value = {"tpu": "local", "devices": 2}[name]
    with pytest.raises(RemaskError) as refused:
        choose_strategy(**{name: value}, place=Place(0, ("a:1", "b:1")))
    must_name(str(refused.value), f"{name}:", f"found {value}", "expected none", "2 workers of TF_CONFIG")


def test_alone_one_knows_what_one_says():
    alone = Workers(tf.distribute.get_strategy())
    assert alone.each(2.5).tolist() == [2.5]
    assert alone.most(-1) == -1
    alone.meet()
    alone.check_alike(step=1, asked=asdict(RUN), variables={})


@pytest.fixture(scope="module")
def options(tiny_data_set, tiny_shape, tmp_path_factory):
    return TrainOptions(
        data=tiny_data_set,
        run_dir=str(tmp_path_factory.mktemp("together")),
        model=tiny_shape,
        train_steps=120,
        global_batch_size=16,
        eval_every=60,
        checkpoint_every=2,
        steps_per_loop=5,
        learning_rate=1e-3,
        warmup_steps=4,
        shuffle_examples=60,
        dropout=0.0,
        probes=("we saw the [MASK] again.",),
    )


@contextlib.contextmanager
def started(options):
    """Give two workers of a run."""
    addresses = [f"127.0.0.1:{port}" for port in ports.free(2)]
    arguments = [
        f"--{name}={value}"
        for name, value in vars(options).items()
        if name != "probes" and value != TrainOptions.__dataclass_fields__[name].default
    ]
    with contextlib.ExitStack() as both:
        yield [
            both.enter_context(
                processes.started(
                    [sys.executable, "-m", "trainer", "train", *arguments, "--probes", *options.probes],
                    env={**os.environ, **tf_config(index=index, worker=addresses)},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    cwd=ROOT,
                )
            )
            for index in range(2)
        ]


def ended(workers):
    """Return the status of each, what it said, and what it said went wrong; TensorFlow's own log is neither."""
    both = [processes.ended(worker) for worker in workers]
    errors = [[line for line in stderr.splitlines() if line.startswith("error: ")] for _, stderr in both]
    return [worker.returncode for worker in workers], [stdout for stdout, _ in both], errors


def wait_for_step(options, step, workers):
    folder = f"{options.run_dir}/checkpoints"
    processes.wait_for(lambda: any(checkpoint.step_of(path) >= step for path in checkpoint.paths(folder)), *workers)


def last_state(options):
    return checkpoint.read(checkpoint.paths(f"{options.run_dir}/checkpoints")[-1])


def test_two_workers_stopped_and_continued_do_what_one_does(options, tmp_path):
    """By a signal to the one that follows; then to the end."""
    with started(options) as workers:
        wait_for_step(options, 10, workers)
        workers[1].send_signal(signal.SIGTERM)
        statuses, said, errors = ended(workers)
    assert statuses == [128 + signal.SIGTERM] * 2, errors
    stopped_at = last_state(options)[0].step
    assert 10 <= stopped_at < options.train_steps
    assert f"run the same command again to continue after step {stopped_at}\n" in said[0]
    assert said[0].startswith("workers  2, at 127.0.0.1:")
    assert said[1] == ""

    with started(options) as workers:
        statuses, said, errors = ended(workers)
    assert statuses == [0, 0], errors
    assert said[1] == ""
    alone = replace(options, run_dir=str(tmp_path))
    assert train(alone) == 0
    (ours, state), (theirs, expected) = last_state(options), last_state(alone)
    for name, value in expected.items():
        np.testing.assert_allclose(state[name], value, rtol=0, atol=1e-6, err_msg=name)
    for two, one in zip(ours.evaluations, theirs.evaluations, strict=True):
        assert two.loss == pytest.approx(one.loss, abs=1e-6)
        assert (two.step, two.tokens) == (one.step, one.tokens)
    assert lines(options, "step") == lines(alone, "step")
    assert lines(options, "loss") == pytest.approx(lines(alone, "loss"), abs=1e-6)
    made = [sorted(path.name for path in Path(run.run_dir, "export").iterdir()) for run in (options, alone)]
    assert made[0] == made[1]


@pytest.mark.slow
def test_a_worker_that_is_killed_is_missed_and_said_to_be(options, tmp_path):
    run = replace(options, run_dir=str(tmp_path), train_steps=2000)
    with started(run) as workers:
        wait_for_step(run, 10, workers)
        workers[0].kill()
        statuses, _, errors = ended(workers)
    assert statuses == [-signal.SIGKILL, 1], errors
    (line,) = errors[1]
    assert line.startswith("error: another worker is gone (")
    assert f"). The run is saved up to step {last_state(run)[0].step}; start the same command again, on all " in line


def lines(options, name):
    """Return a column of the metrics at the borders of `steps_per_loop`."""
    read = [json.loads(line) for line in Path(options.run_dir, "metrics.jsonl").read_text().splitlines()]
    return [line[name] for line in read if "loss" in line and line["step"] % options.steps_per_loop == 0]


@pytest.mark.parametrize(
    ("differs", "found"),
    [("step", "step (40 and 0)"), ("options", "options or data"), ("weights", "weights")],
)
def test_workers_that_would_not_do_the_same_are_refused(differs, found):
    asked = iter(("step", "options", "weights"))

    class Two(Workers):
        def each(self, value):
            return np.array([value, 0 if next(asked) == differs else value], float)

    two = Two(tf.distribute.get_strategy(), Place(0, ("a:1", "b:1")))
    with pytest.raises(RemaskError) as refused:
        two.check_alike(step=40, asked=asdict(RUN), variables={"a": tf.Variable([1.0])})
    must_name(
        str(refused.value),
        "workers 0 and 1",
        f"another {found}",
        "the same command",
        "data, a model and a RUN that all of them see",
    )
