"""Fetches files from the HuggingFace hub."""

from collections.abc import Sequence

from records.errors import RemaskError

_SECONDS = 10  # within which the hub must answer at all


def fetch(name: str, files: Sequence[str]) -> str:
    """Return a local folder that holds those of `files` that a repository has.

    What was fetched before and has not changed is not fetched again, and has to do where the hub cannot be reached.

    Args:
        name: of the repository, such as `google-bert/bert-base-uncased`.
        files: names or patterns.

    Raises:
        RemaskError: why there is no such folder, to be put behind what it was for.
    """
    from huggingface_hub import errors, snapshot_download
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # it would announce each retry
    try:
        return str(snapshot_download(name, allow_patterns=list(files), local_files_only=not _reachable()))
    except errors.HFValidationError:
        reason = "it is neither a folder nor a name that the HuggingFace hub could give a model"
    except errors.GatedRepoError:
        reason = "the HuggingFace hub gives it only to users who have accepted its terms and logged in"
    except errors.RepositoryNotFoundError:
        reason = "it is no folder, and the HuggingFace hub has no model of that name that it would show us"
    except errors.LocalEntryNotFoundError:
        reason = "it is no folder, it was not fetched before, and the HuggingFace hub cannot be reached"
    except Exception as error:  # what else the network and the disk may have to say
        said = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        reason = f"the HuggingFace hub did not give it to us ({said})"
    raise RemaskError(reason)


def _reachable() -> bool:
    """Say whether the hub answers. Its client alone would try for half a minute, and for each file again."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=_SECONDS)
    except Exception:  # of an HTTP library that is the hub's choice
        return False
    return True
