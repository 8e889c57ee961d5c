import sys

import pytest

from benchmarks import cloud
from tests import processes

WRITES_AND_READS = """
from records import storage
storage.write_bytes("gs://local-bucket/one", b"content")
assert storage.read_bytes("gs://local-bucket/one") == b"content"
"""


@pytest.mark.cloud
def test_contenders_find_the_bucket():
    with cloud.served() as environment:
        done = processes.run(
            [sys.executable, "-c", WRITES_AND_READS], env=dict(environment), capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr


def test_a_cloud_that_does_not_start_is_explained(monkeypatch):
    monkeypatch.setattr(cloud, "_SHOW_ENVIRONMENT", "raise SystemExit('no room')")
    with pytest.raises(cloud.RemaskError, match=r"(?s)^the local cloud did not start: no room"), cloud.served():
        pass
