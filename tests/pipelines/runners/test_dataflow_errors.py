"""What Dataflow and its workers say, in words for the user."""

import pytest
from google.api_core import exceptions
from google.auth.exceptions import RefreshError

from pipelines.runners.dataflow_errors import failure, refusal
from tests.said import must_name

WHERE = {"project": "words", "region": "us-central1"}
LOGIN = ("'gcloud auth application-default login'", "key file of a service account", "GOOGLE_APPLICATION_CREDENTIALS")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            exceptions.Forbidden("no"),
            (
                "project words:",
                "me@example.com may not run jobs on Dataflow",
                "(no)",
                "'gcloud projects add-iam-policy-binding words --member=user:me@example.com "
                "--role=roles/dataflow.developer'",
            ),
        ),
        (
            exceptions.NotFound("no such thing"),
            ("project words:", "no such project", "(no such thing)", "'gcloud projects list'"),
        ),
        (
            exceptions.TooManyRequests("slowly"),
            ("project words:", "Dataflow takes no more requests", "(slowly)", "run the same command again"),
        ),
        (
            exceptions.Unauthenticated("who?"),
            ("Dataflow does not accept these credentials", "(who?)", *LOGIN),
        ),
        (
            RefreshError("expired"),
            ("Dataflow cannot be asked with these credentials", "(expired)", *LOGIN),
        ),
        (
            exceptions.Forbidden("Permission 'iam.serviceAccounts.actAs' denied on service account w@x"),
            (
                "project words:",
                "this account may not let workers act as their service account",
                "(Permission 'iam.serviceAccounts.actAs' denied on service account w@x)",
                "'gcloud projects add-iam-policy-binding words --member=user:ACCOUNT "
                "--role=roles/iam.serviceAccountUser'",
            ),
        ),
        (exceptions.BadRequest("odd\nvery"), ("Dataflow refuses it", "(odd)")),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_refusals(error, said):
    must_name(refusal(error, **WHERE, account="me@example.com"), *said)


def trace(line):
    return f"Error message from worker: generic::unknown: Traceback (most recent call last):\n  File x\n{line}\n\nat y"


TRIED = "Workflow failed. Causes: The job failed because a work item was attempted 4 times without success."


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ([], ("it does not say why",)),
        ([TRIED], (TRIED,)),
        ([TRIED, trace("OSError: no [while running 'Shards-ptransform-9']")], ("OSError: no",)),
        ([trace("google.api_core.exceptions.Odd: strange"), TRIED], ("Error message from worker: generic::unknown: ",)),
        (
            [trace("ModuleNotFoundError: No module named 'tokenizers'"), TRIED],
            ("its workers", "no package 'tokenizers'", "--sdk_container_image", "setup.py", "hold all that"),
        ),
        (
            ["Some Cloud APIs need to be enabled for your project in order for Cloud Dataflow to run this job."],
            (
                "project words:",
                "Dataflow is not enabled",
                "'gcloud services enable dataflow.googleapis.com compute.googleapis.com --project=words'",
            ),
        ),
        (
            [trace("Forbidden: 403 w@x does not have storage.objects.create access. Permission denied")],
            (
                "its workers",
                "w@x",
                "lack storage.objects.create",
                "'gcloud projects add-iam-policy-binding words --member=serviceAccount:w@x "
                "--role=roles/storage.objectUser'",
            ),
        ),
        (
            ["Permission 'dataflow.workItems.lease' denied"],
            (
                "its workers",
                "w@x",
                "lack dataflow.workItems.lease",
                "'gcloud projects add-iam-policy-binding words --member=serviceAccount:w@x "
                "--role=roles/dataflow.worker'",
            ),
        ),
        (
            ["The worker VM had to shut down one or more processes due to lack of memory: out of memory"],
            ("a worker ran out of memory", "ARGS=--machine_type=n2-highmem-4"),
        ),
        (
            [trace("ValueError: the quota of the regional endpoint")],
            ("ValueError: the quota of the regional endpoint",),
        ),
    ],
)
def test_failures(said, why):
    found = failure(said, **WHERE, service_account="w@x")
    must_name(found, *why)
    assert found.startswith(why[0])
