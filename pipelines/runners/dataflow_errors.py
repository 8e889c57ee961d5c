"""What Dataflow's refusals and failures mean to the user, and which command mends them.

A refusal is an answer to a request. Most of what can go wrong is found later, by the job: then it stands in its log.
"""

import re
from collections.abc import Iterable

from google.api_core import exceptions as api

from records.storage import credentials

_MACHINES = "compute.googleapis.com"  # the service that Dataflow takes its workers from
_DATAFLOW = "dataflow.googleapis.com"


def refusal(error: Exception, *, project: str, region: str, account: str) -> str:
    """Return what an answer of Dataflow's means that is not the wanted one.

    Args:
        error: what its client raised.
        project: that pays for the job.
        region: in which it was to run.
        account: who asked; "" where nobody knows.
    """
    if not isinstance(error, api.GoogleAPICallError):
        said = _first_line(str(error)) or type(error).__name__
        return f"Dataflow cannot be asked with these credentials ({said}); {credentials.HOW_TO_GET}"
    said = _first_line(error.message) or type(error).__name__
    if known := _known(said, project=project, region=region):
        return known
    if isinstance(error, api.Unauthenticated):
        return f"Dataflow does not accept these credentials ({said}); {credentials.HOW_TO_GET}"
    if isinstance(error, api.Forbidden) and error.reason == "SERVICE_DISABLED":
        return _disabled(project)
    if isinstance(error, api.Forbidden):
        return (
            f"project {project}: {account or 'this account'} may not run jobs on Dataflow ({said}); grant it with "
            f"'gcloud projects add-iam-policy-binding {project} --member={credentials.member(account)} "
            f"--role=roles/dataflow.developer'"
        )
    if isinstance(error, api.NotFound):
        return f"project {project}: Dataflow finds no such project ({said}); 'gcloud projects list' lists yours"
    if isinstance(error, api.TooManyRequests):
        return f"project {project}: Dataflow takes no more requests at the moment ({said}); run the same command again"
    if isinstance(error, api.ServiceUnavailable | api.DeadlineExceeded):
        return (
            f"Dataflow cannot be reached ({said}); look at the network, and at the proxy where HTTPS_PROXY names one, "
            f"and run the same command again"
        )
    return f"Dataflow refuses it ({said})"


def failure(said: Iterable[str], *, project: str, region: str, service_account: str) -> str:
    """Return why a job has failed, as far as the errors in its log tell.

    Args:
        said: texts of these errors, in order.
        project: that pays for the job.
        region: in which it ran.
        service_account: as which its workers acted; "" for the project's default.
    """
    texts = list(said)
    for text in texts:
        if found := re.search(r"ModuleNotFoundError: No module named '([\w.]+)'", text):
            return (
                f"its workers have no package '{found[1]}'. Without --sdk_container_image they are sent remask, and "
                f"install what its setup.py asks for; an image that is named has to hold all that"
            )
        if "Traceback" not in text and (known := _known(text, project=project, region=region)):
            return known
        if found := re.search(r"(storage|dataflow)\.\w+\.\w+", text) if "denied" in text.lower() else None:
            who = service_account or "the project's default service account"
            member = f"serviceAccount:{service_account or 'ACCOUNT'}"
            role = "roles/dataflow.worker" if found[1] == "dataflow" else "roles/storage.objectUser"
            return (
                f"its workers, which act as {who}, lack {found[0]}; grant it with 'gcloud projects "
                f"add-iam-policy-binding {project} --member={member} --role={role}'"
            )
        if "out of memory" in text.lower() or "OOM" in text:
            return "a worker ran out of memory; give it more, as with ARGS=--machine_type=n2-highmem-4"
    # A traceback says more than that something was tried four times.
    ranked = sorted(texts, key=lambda text: ("Traceback" not in text, "work item was attempted" in text))
    return _last_words(ranked[0]) if ranked else "it does not say why"


def _known(said: str, *, project: str, region: str) -> str:
    """Return what a text means that comes as a refusal as well as in a job's log; "" if it is none of these."""
    said = _first_line(said)
    lower = said.lower()
    if "has not been used in project" in lower or "cloud apis need to be enabled" in lower:
        return _disabled(project)
    if "regional endpoint" in lower:
        return (
            f"region {region}: Dataflow knows no such region ({said}); 'gcloud compute regions list "
            f"--project={project}' lists them"
        )
    if "jobs-per-project quota" in lower:
        return (
            f"project {project}: too many jobs run at the same time ({said}); 'gcloud dataflow jobs list "
            f"--status=active --project={project} --region={region}' lists them"
        )
    if "quota" in lower:
        return (
            f"project {project}: its quota in {region} does not suffice ({said}); give fewer WORKERS, another REGION, "
            f"or ask for more: 'gcloud compute regions describe {region} --project={project}' shows what there is"
        )
    if "actas" in lower:
        return (
            f"project {project}: this account may not let workers act as their service account ({said}); grant it "
            f"with 'gcloud projects add-iam-policy-binding {project} --member=user:ACCOUNT "
            f"--role=roles/iam.serviceAccountUser'"
        )
    return ""


def _disabled(project: str) -> str:
    return (
        f"project {project}: Dataflow is not enabled; enable it with 'gcloud services enable {_DATAFLOW} {_MACHINES} "
        f"--project={project}'"
    )


def _last_words(text: str) -> str:
    r"""Return the line of a worker's report that says what happened.

    >>> _last_words("Traceback (most recent call last):\n  File ...\nOSError: no [while running 'Shards-ptransform-9']")
    'OSError: no'
    """
    raised = re.findall(r"^(?:\w+\.)*\w*(?:Error|Exception|Interrupt)\b.*", text, re.MULTILINE)
    line = raised[-1] if raised else _first_line(text)
    return line.split(" [while running ")[0]


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
