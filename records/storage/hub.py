"""Fetches files from the HuggingFace hub."""

import os
import shlex
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from records.errors import RemaskError

_SECONDS = 5  # within which the hub must answer at all; names that no server resolves and several addresses included
# (where its client's own HF_HUB_ETAG_TIMEOUT is set, that counts)


def fetch(name: str, files: Sequence[str], *, needs: Sequence[Sequence[str]]) -> str:
    """Return a local folder that holds those of `files` that a repository has.

    What was fetched before and has not changed is not fetched again, and has to do where the hub cannot be reached.
    HF_HUB_OFFLINE=1 forbids to try.

    Args:
        name: of the repository, such as `google-bert/bert-base-uncased`.
        files: names or patterns.
        needs: without which what was fetched before will not do: of each of these names, one has to be there.

    Raises:
        RemaskError: why there is no such folder, to be put behind what it was for.
    """
    from huggingface_hub import errors, snapshot_download
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # it would announce each retry
    offline = _offline()
    try:
        if not offline:
            try:
                return str(snapshot_download(name, allow_patterns=list(files)))
            except errors.LocalEntryNotFoundError as error:  # it answered once, and then no more
                offline = f"the HuggingFace hub cannot be reached ({_first_line(error)})"
        # Nothing is asked for: newer clients refuse a folder that lacks any of it, older ones give it all the same.
        folder = str(snapshot_download(name, allow_patterns=[], local_files_only=True))
    except errors.HFValidationError:
        reason = "it is neither a folder nor a name that the HuggingFace hub could give a model"
    except errors.GatedRepoError:
        reason = "the HuggingFace hub gives it only to users who have accepted its terms and logged in"
    except errors.RepositoryNotFoundError:
        reason = "it is no folder, and the HuggingFace hub has no model of that name that it would show us"
    except errors.LocalEntryNotFoundError:
        reason = f"it is no folder, it was not fetched before, and {offline}"
    except Exception as error:  # what else the network and the disk may have to say
        reason = f"the HuggingFace hub did not give it to us ({_first_line(error)})"
    else:
        there = sorted(path.name for path in Path(folder).iterdir() if path.exists())  # not a link to what was removed
        missing = [" or ".join(names) for names in needs if not set(names) & set(there)]
        if not missing:
            return folder
        reason = (
            f"{offline}, and what was fetched before, in {folder}, is {', '.join(there) or 'nothing'}, without "
            f"{' and '.join(missing)}. With a network the same command fetches the rest, and so does "
            f"{download(name, files)}"
        )
    raise RemaskError(reason)


def download(name: str, files: Sequence[str]) -> str:
    """Return the command that fetches files, or what matches patterns, where there is a network."""
    beside = os.path.join(os.path.dirname(sys.executable), "hf")
    wanted = (part for file in files for part in ("--include", file))
    return shlex.join((beside if os.path.exists(beside) else "hf", "download", name, *wanted))


def _offline() -> str:
    """Return why the hub is not to be asked; "" where it answers.

    Its client alone would try for half a minute, and for each file again.
    """
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE=1 forbids to ask the HuggingFace hub"
    ended: list[str] = []
    seconds = constants.HF_HUB_ETAG_TIMEOUT if "HF_HUB_ETAG_TIMEOUT" in os.environ else _SECONDS

    def ask() -> None:
        try:
            get_session().head(constants.ENDPOINT, timeout=seconds)
            ended.append("")
        except Exception as error:  # of an HTTP library that is the hub's choice
            ended.append(_first_line(error))

    # No timeout of the client's bounds the look-up of a name, nor all addresses of a name together.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    why = ended[0] if ended else f"no answer within {seconds} s; to wait longer set HF_HUB_ETAG_TIMEOUT"
    return why and f"the HuggingFace hub cannot be reached ({why})"


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
