"""Chooses where to train: a TPU that is named, every GPU there is, or one CPU."""

from collections.abc import Callable

import tensorflow as tf

from records.errors import RemaskError


def choose_strategy(
    *, tpu: str = "", devices: int = 0, check_hosts: Callable[[int], None] = lambda hosts: None
) -> tf.distribute.Strategy:
    """Return the strategy for what is there.

    Args:
        tpu: name of a Cloud TPU, or "local" on a TPU VM; empty for none.
        devices: replicas, at most as many as there are GPUs; without GPUs, that many logical CPUs, which are for tests;
            0 is every GPU, or else one CPU.
        check_hosts: is told the number of hosts of a TPU before it is initialised, and may refuse it.

    Raises:
        RemaskError: fewer devices than asked for, or a TPU that cannot be reached.
    """
    if tpu:
        return _tpu_strategy(tpu, check_hosts)
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


def check_tpu_paths(tpu: str, **paths: str) -> None:
    """Refuse a remote TPU with paths on the local disk, which its hosts cannot see.

    Raises:
        RemaskError: a path that is not on `gs://`.
    """
    if not tpu or tpu == "local":
        return
    for name, path in paths.items():
        if not path.startswith("gs://"):
            raise RemaskError(
                f"{name}: {path} is on the local disk, which the hosts of the TPU {tpu!r} cannot see; put it on gs://, "
                f"or train on a TPU VM with TPU=local"
            )


def _tpu_strategy(name: str, check_hosts: Callable[[int], None]) -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        if name != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        check_hosts(resolver.get_tpu_system_metadata().num_hosts)
        tf.tpu.experimental.initialize_tpu_system(resolver)
    except RemaskError:
        raise
    except Exception as error:  # the resolver, the Cloud API and the runtime each raise what they like
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise RemaskError(
            f"tpu: {name!r} cannot be used ({reason}). It needs a TensorFlow built for TPUs, which the extra "
            f"remask[tpu] installs, and the name of a TPU that is running, or local on a TPU VM"
        ) from error
    return tf.distribute.TPUStrategy(resolver)
