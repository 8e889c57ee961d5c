"""`python -m tests.cloud -- COMMAND...` runs a command in a local cloud that has a bucket `local-bucket`.

Its project is `local-project`; it has Dataflow in us-central1, and a TPU API that knows of no TPU. At its end it shows
all that was asked for.
"""

import subprocess
import sys
from collections.abc import Sequence

from tests.cloud import tpu_api
from tests.cloud.cloud import LocalCloud
from tests.cloud.dataflow import Dataflow

BUCKET = "local-bucket"


def main(argv: Sequence[str]) -> int:
    """Run a command; return its exit status."""
    command = argv[1:] if argv[:1] == ["--"] else argv
    if not command:
        print("usage: python -m tests.cloud -- COMMAND...", file=sys.stderr)
        return 2
    with LocalCloud() as cloud, Dataflow(cloud):
        cloud.storage.create_bucket(BUCKET)
        cloud.services[tpu_api.HOST] = tpu_api.TpuApi(cloud.account_of)
        status = subprocess.run(command, env=cloud.applied(), check=False).returncode
        print(*cloud.log, *(f"refused {host}" for host in cloud.refused), sep="\n", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
