"""Chooses where to train: a TPU, the machines of several workers, every GPU of this one, or its CPU."""

import tensorflow as tf

from records.errors import RemaskError
from trainer.config import is_remote_tpu
from trainer.workers import ALONE, Place


def choose_strategy(*, tpu: str = "", devices: int = 0, place: Place = ALONE) -> tf.distribute.Strategy:
    """Return the strategy for what is there.

    Args:
        tpu: "local", on a TPU VM, or empty for none.
        devices: replicas, at most as many as there are GPUs; without GPUs, that many logical CPUs, which are for tests;
            0 is every GPU, or else one CPU.
        place: this process's among several workers, each of which calls this before it does anything in TensorFlow.

    Raises:
        RemaskError: fewer devices than asked for, no TPU, one of several hosts, or workers that would have one.
    """
    if not place.alone:
        return _workers_strategy(place, tpu=tpu, devices=devices)
    if is_remote_tpu(tpu):
        raise RemaskError(
            f"tpu: found {tpu}; this version reaches the TPU of its own machine only: log in to that TPU VM with "
            f"'gcloud compute tpus tpu-vm ssh {tpu}', and run the same command there with TPU=local"
        )
    if tpu:
        return _tpu_strategy()
    gpus = len(tf.config.list_physical_devices("GPU"))
    if gpus:
        if devices > gpus:
            raise RemaskError(f"devices: asked for {devices}, found {gpus} GPUs; give at most {gpus}, or 0 for all")
        names = [f"GPU:{number}" for number in range(devices or gpus)]
        return tf.distribute.get_strategy() if len(names) == 1 else tf.distribute.MirroredStrategy(names)
    if devices > 1:
        return logical_cpu_strategy(devices)
    return tf.distribute.get_strategy()


def kind() -> str:
    """Return what kind of device TensorFlow computes on: TPU, GPU or CPU."""
    found = {device.device_type for device in tf.config.list_logical_devices()}
    return next(device for device in ("TPU", "GPU", "CPU") if device in found)


def logical_cpu_strategy(replicas: int) -> tf.distribute.Strategy:
    """Return a strategy of several replicas on one CPU: no faster than one, but every rule of many devices holds.

    Raises:
        RemaskError: TensorFlow has been started with fewer logical CPUs.
    """
    configure_logical_cpus(replicas)
    found = len(tf.config.list_logical_devices("CPU"))
    if found < replicas:
        raise RemaskError(f"devices: asked for {replicas} logical CPUs, TensorFlow runs with {found} already")
    names = [f"CPU:{number}" for number in range(replicas)]
    # The default way of reducing is unstable between logical CPUs.
    return tf.distribute.MirroredStrategy(names, cross_device_ops=tf.distribute.ReductionToOneDevice())


def configure_logical_cpus(number: int) -> None:
    """Split the CPU into logical devices, if TensorFlow has not been started yet."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    if tf.config.get_logical_device_configuration(cpu) is None:
        try:
            tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * number)
        except RuntimeError:  # started
            return


def _workers_strategy(place: Place, *, tpu: str, devices: int) -> tf.distribute.Strategy:
    for name, value in (("tpu", tpu), ("devices", devices)):
        if value:
            raise RemaskError(
                f"{name}: found {value}, expected none beside the {len(place.addresses)} workers of TF_CONFIG, each of "
                f"which trains on every GPU of its machine, or else on its CPU"
            )
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    # Each worker is given as many batches as the others: nobody has to be asked whether there are more, and shapes are
    # static.
    strategy.extended.experimental_enable_get_next_as_optional = False
    return strategy


def _tpu_strategy() -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu="local")
        hosts = resolver.get_tpu_system_metadata().num_hosts
        if hosts > 1:
            raise RemaskError(
                f"tpu: found {hosts} hosts, expected one: each would read the same sequences; use a TPU of one host"
            )
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except RemaskError:
        raise
    except Exception as error:  # the resolver and the runtime each raise what they like
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise RemaskError(
            f"tpu: 'local' cannot be used ({reason}). It needs a TPU VM, and a TensorFlow built for TPUs, which the "
            f"extra remask[tpu] installs"
        ) from error
    return tf.distribute.TPUStrategy(resolver)
