"""Ask the Hugging Face hub for the facts of a repository, without a download."""

from functools import partial
from typing import TYPE_CHECKING, Final

from clepdg.download import http_client
from clepdg.download.check.jobs import run_in_threads
from clepdg.errors import BackboneError
from clepdg.models.files import Choose

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

ASK_SECONDS: Final = 10.0  # for one read of an answer
ALL_SECONDS: Final = 30.0  # for all that is asked of one repository


def repository_info(name: str, revision: str | None, choose: Choose) -> "tuple[ModelInfo, list[str]]":
    """Return a repository's metadata and chosen files; download nothing.

    Raises:
        BackboneError: no such repository or revision, gated, no usable files, offline, not reachable, or too slow.
    """
    answer = next(run_in_threads([partial(_ask, name, revision, choose)], ALL_SECONDS))
    if answer is None:  # a hub that sends a byte now and then keeps every single read short
        got, do = f"no whole answer in {ALL_SECONDS:.0f} s", "try again later, or set HF_ENDPOINT to a mirror"
        raise BackboneError("The hub is too slow.", got=got, where=name, do=do, away=True)
    return answer


def _ask(name: str, revision: str | None, choose: Choose) -> "tuple[ModelInfo, list[str]]":
    from huggingface_hub import HfApi, errors, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.constants import ENDPOINT, is_offline_mode

    where = f"{name}{f'@{revision}' if revision else ''} at {ENDPOINT}"
    elsewhere = "or give a folder: where there is a network, download the model and copy its folder here"
    if is_offline_mode():
        got = "HF_HUB_OFFLINE (or TRANSFORMERS_OFFLINE) is set, and the hub's cache does not hold this revision"
        do = f"unset it; {elsewhere}"
        raise BackboneError("The model's files are not here.", got=got, where=where, do=do)
    try:
        info = HfApi().model_info(name, revision=revision, files_metadata=True, timeout=ASK_SECONDS)
        files = choose([sibling.rfilename for sibling in info.siblings or ()])
        get_hf_file_metadata(hf_hub_url(name, files[-1], revision=revision), timeout=ASK_SECONDS)  # fails if gated
    except BackboneError as error:
        raise BackboneError("The model on the hub can't be used.", got=error, where=where) from None
    except errors.GatedRepoError as error:
        do = f"accept its terms on {ENDPOINT}/{name}, then hf auth login (or set HF_TOKEN)"
        raise BackboneError("The model is gated.", got=first_line(error), where=where, do=do) from error
    except errors.RevisionNotFoundError as error:
        do = "find the commit on the model's page, under History"
        raise BackboneError("The model has no such revision.", got=revision, where=where, do=do) from error
    except errors.RepositoryNotFoundError as error:
        do = f"check its name; if it is private, hf auth login (or set HF_TOKEN); {elsewhere}"
        raise BackboneError("There is no such model on the hub.", got=name, where=where, do=do) from error
    except errors.HfHubHTTPError as error:
        do = f"try again later, or set HF_ENDPOINT to a mirror; {elsewhere}"
        busy = error.response.status_code in http_client.BUSY or error.response.status_code >= 500
        raise BackboneError("The hub refuses.", got=first_line(error), where=where, do=do, away=busy) from error
    except (errors.HTTPError, OSError, ValueError) as error:  # type: ignore[attr-defined]
        got = f"{type(error).__name__}: {first_line(error)}"
        do = f"connect to the network, or set HF_ENDPOINT to a mirror; {elsewhere}"
        away = not isinstance(error, ValueError)
        raise BackboneError("The hub does not answer.", got=got, where=where, do=do, away=away) from error
    except (LookupError, TypeError, AttributeError) as error:  # of JSON that is no description of a model
        got, do = f"{type(error).__name__}: {first_line(error)}", "check HF_ENDPOINT: it may not be a hub"
        raise BackboneError("The hub's answer can't be read.", got=got, where=where, do=do) from error
    return info, files


def first_line(error: Exception) -> str:
    """Return the first line of an error that says something."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:300]
