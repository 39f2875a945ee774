"""Models on the Hugging Face Hub: ``hf://owner/name``, or ``hf://owner/name@revision``.

The library that speaks with the Hub (extra ``hub``) is imported only where such an address is used.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fractalgen.errors import UserError, missing, reason

SCHEME = "hf://"
MODEL_FILE, CARD_FILE = "model.safetensors", "README.md"  # of a shared model: the names that the Hub looks for
CRITIC_FILE = "critic.json"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", re.ASCII)


def is_address(name: str | os.PathLike[str]) -> bool:
    """Whether a model is named by its address on the Hub."""
    return os.fspath(name).startswith(SCHEME)


def address_of(name: str | os.PathLike[str] | None) -> str | os.PathLike[str] | None:
    """``owner/name`` as its address on the Hub; paths that are here, and whatever is no such name, stay."""
    text = "" if name is None else os.fspath(name)
    file = text.lower().endswith((".safetensors", ".ckpt")) or Path(text).exists()
    remote = isinstance(name, str) and _REPOSITORY.fullmatch(text) and not file
    return f"{SCHEME}{text}" if remote else name


def download(address: str, flag: str = "model") -> Path:
    """The file of a model on the Hub: from the cache where it is there and is still the same.

    Without a network, what the cache holds is used.  A card and a critic that the repository has lie beside the file.

    Raises:
        UserError: no such model, it is private, there is no network, or ``huggingface_hub`` is missing.
    """
    name = address.removeprefix(SCHEME)
    if not _REPOSITORY.fullmatch(name):
        raise UserError(f"--{flag} {address}: not of the form {SCHEME}owner/name or {SCHEME}owner/name@revision")
    repository, _, revision = name.partition("@")
    with _told(f"--{flag} {address}"):
        from huggingface_hub import errors, hf_hub_download

        try:
            path = Path(hf_hub_download(repository, MODEL_FILE, revision=revision or None))
        except errors.RemoteEntryNotFoundError as error:
            raise UserError(
                f"--{flag} {address}: there is no {MODEL_FILE} in it; it is no model of FractalGen"
            ) from error
        for beside in (CARD_FILE, CRITIC_FILE):
            with suppress(errors.EntryNotFoundError):  # of the same revision, by which the folder is named
                hf_hub_download(repository, beside, revision=path.parent.name)
    return path


def upload(folder: Path, repository: str, *, private: bool, message: str, token: str | None, keep_card: bool) -> str:
    """Put the files of a folder into a repository, which is made if needed, and return the address of the change.

    ``keep_card``: a card that is there already stays.

    Raises:
        UserError: no such name, no permission, no network, or ``huggingface_hub`` is missing.
    """
    if not _REPOSITORY.fullmatch(repository) or "@" in repository:
        raise UserError(f"{repository}: not of the form owner/name")
    with _told(repository):
        from huggingface_hub import HfApi

        hub = HfApi(token=token, library_name="fractalgen")
        hub.create_repo(repository, private=private, exist_ok=True)
        ignored = [CARD_FILE] if keep_card and hub.file_exists(repository, CARD_FILE) else []
        change = hub.upload_folder(
            repo_id=repository, folder_path=folder, commit_message=message, ignore_patterns=ignored
        )
    return str(change.commit_url)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Errors of the library, and its absence, in one line."""
    try:
        import httpx2
        from huggingface_hub import constants, errors
    except ImportError as error:
        raise missing(f"{what}: the Hugging Face Hub", "huggingface_hub", "hub") from error
    try:
        yield
    except UserError:
        raise
    except errors.GatedRepoError as error:
        raise UserError(
            f"{what}: {constants.ENDPOINT} asks for your consent on the page of this model first"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"{what}: no such model on {constants.ENDPOINT}, or a private one (log in with `hf auth login`)"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{what}: no such revision on {constants.ENDPOINT}") from error
    except errors.LocalEntryNotFoundError as error:
        raise UserError(
            f"{what}: {constants.ENDPOINT} cannot be reached, and the model is not in {constants.HF_HUB_CACHE}"
        ) from error
    except errors.HfHubHTTPError as error:
        login = " (log in with `hf auth login`)" if error.response.status_code in (401, 403) else ""
        raise UserError(f"{what}: {constants.ENDPOINT} refuses: {reason(error)}{login}") from error
    except (httpx2.HTTPError, OSError, ValueError, RuntimeError) as error:  # the last of an upload that broke off
        raise UserError(f"{what}: {constants.ENDPOINT} cannot be used: {reason(error.__cause__ or error)}") from error
