"""A genuine TPUStrategy without a TPU: what it is told of the hardware is made up. It traces; it cannot execute."""

from unittest import mock

import numpy as np
import tensorflow as tf
from tensorflow.python.client.session import _DeviceAttributes as Device
from tensorflow.python.tpu.topology import Topology
from tensorflow.python.tpu.tpu_system_metadata import TPUSystemMetadata


def made_up(*, hosts: int, replicas: int) -> tf.distribute.TPUStrategy:
    """Return a strategy for so many hosts, each with so many replicas."""
    chips = np.array([[[place, host, 0, 0] for place in range(replicas)] for host in range(hosts)], np.int32)
    kinds = ["CPU:0", *(f"TPU:{place}" for place in range(replicas))]
    metadata = TPUSystemMetadata(
        num_cores=hosts * replicas,
        num_hosts=hosts,
        num_of_cores_per_host=replicas,
        topology=Topology(mesh_shape=np.array([replicas, hosts, 1, 1], np.int32), device_coordinates=chips),
        devices=[
            Device(f"/job:worker/replica:0/task:{host}/device:{kind}", kind[:3], 0, 0)
            for host in range(hosts)
            for kind in kinds
        ],
    )
    resolver = tf.distribute.cluster_resolver.TPUClusterResolver
    with mock.patch.object(resolver, "get_tpu_system_metadata", return_value=metadata):
        return tf.distribute.TPUStrategy(resolver("local"))
