"""Chooses where to train: a TPU, the machines of several workers, every GPU of this one, or its CPU."""

import tensorflow as tf

from records.errors import RemaskError
from trainer.config import is_remote_tpu
from trainer.devices import lost
from trainer.devices.workers import ALONE, Place


def choose_strategy(
    *, tpu: str = "", zone: str = "", project: str = "", devices: int = 0, place: Place = ALONE
) -> tf.distribute.Strategy:
    """Return the strategy for what is there.

    Args:
        tpu: "local", on a TPU VM; the name of one, or the addresses of its hosts; or empty for none.
        zone: of the TPU that is named; where empty all are searched.
        project: of the TPU that is named; where empty that of the credentials.
        devices: replicas, at most as many as there are GPUs; without GPUs, that many logical CPUs, which are for tests;
            0 is every GPU, or else one CPU.
        place: this process's among several workers, each of which calls this before it does anything in TensorFlow.

    Raises:
        RemaskError: fewer devices than asked for, no TPU, one that cannot be used, or workers that would have one.
    """
    if not place.alone:
        return _workers_strategy(place, tpu=tpu, devices=devices)
    if tpu:
        return _remote_tpu_strategy(tpu, zone, project) if is_remote_tpu(tpu) else _local_tpu_strategy()
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


def _local_tpu_strategy() -> tf.distribute.Strategy:
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu="local")
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except Exception as error:  # the resolver and the runtime each raise what they like
        raise RemaskError(
            f"tpu: 'local' cannot be used ({lost.reason(str(error))}). It needs a TPU VM, and a TensorFlow built for "
            f"TPUs, which the extra remask[tpu] installs"
        ) from error


def _remote_tpu_strategy(tpu: str, zone: str, project: str) -> tf.distribute.Strategy:
    from trainer.devices import tpu_api  # brings along clients of Google Cloud

    hosts = tpu_api.endpoints(tpu, zone=zone, project=project)
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=",".join(f"grpc://{host}" for host in hosts))
        tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except Exception as error:
        raise RemaskError(
            f"TPU {tpu}: connected to its {len(hosts)} hosts, {', '.join(hosts)}, but they cannot be used "
            f"({lost.reason(str(error))}). They must run the TensorFlow of this machine, {tf.__version__}, in a "
            f"runtime that has the TPU"
        ) from error
