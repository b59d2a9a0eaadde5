"""A trained adapter or model on the hub: the token, the folder that goes there, and the upload."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lab_utils import adapters, environment, files, generation, integrity, models, pretrained, scrubbing
from lab_utils.card import card
from lab_utils.errors import LabError
from lab_utils.progress import waiting
from lab_utils.runs import Finished

BESIDE_WEIGHTS = ("model.safetensors.index.json", "config.json", "generation_config.json", "adapter_config.json", adapters.BASE_FILE)
REPLACED = ["model*.safetensors", "adapter_model.safetensors", *BESIDE_WEIGHTS]  # what an earlier upload of another kind may have left
CURES = {
    "colab": "add the secret HF_TOKEN (the key on the left) and let this notebook read it",
    "kaggle": "add the secret HF_TOKEN under Add-ons > Secrets and attach it to this notebook",
    "local": "set HF_TOKEN in the environment or run `hf auth login`",
}


def token() -> tuple[str | None, str]:
    """The hub token and, in words, where it was found; without one, None and where it was looked for. It is never shown or written."""
    from huggingface_hub import get_token

    secrets = {"colab": {"Colab's secrets": _colab_secret}, "kaggle": {"Kaggle's secrets": _kaggle_secret}}
    places = {"HF_TOKEN": lambda: os.environ.get("HF_TOKEN"), **secrets.get(environment.where(), {}), "the saved login": get_token}
    for name, look in places.items():
        with suppress(Exception):  # each platform has errors of its own for a secret that is missing or may not be read
            if found := (look() or "").strip():
                return found, name
    return None, " or ".join(places)


def _colab_secret() -> str | None:
    from google.colab import userdata

    return userdata.get("HF_TOKEN")


def _kaggle_secret() -> str | None:
    from kaggle_secrets import UserSecretsClient

    return UserSecretsClient().get_secret("HF_TOKEN")


def prepare(finished: Finished, merged: bool = False, to: str | None = None, model_dir: str | None = None) -> Path:
    """The folder `<run>/<method>/hub` with the files to publish and no others: weights, configuration, tokenizer, card and record.

    Predictions stay at home: they stand beside references, which many datasets do not allow to be passed on.

    Args:
        merged: publish the base with the adapter merged into it. After full fine-tuning there is nothing to merge.
        to: the name on the hub, for the card.
        model_dir: the base's folder, where it was a local one: a record keeps no paths. An adapter alone can do without; its
            folder then holds no tokenizer.

    Raises:
        LabError: nothing was trained, its files are gone, the base cannot be loaded, a reference stands in the recipe, or the disk is full.
    """
    full, target = finished.method == "full", finished.folder / "hub"
    readme, record = card(finished, merged, to), json.dumps(scrubbing.values(finished.record), indent=2, ensure_ascii=False)
    _refuse_references(finished, record)
    trained = finished.folder / ("model" if full else "adapter")
    if not any(trained.glob("*.safetensors")):
        raise LabError(f"There are no weights in '{_shown(trained)}': run {finished.method} again.")
    integrity.check_saved(trained, finished.record["model"].get("saved"))
    try:
        with files.system_errors(), tempfile.TemporaryDirectory(prefix=".hub-", dir=finished.folder) as unfinished:
            folder = Path(unfinished) / "hub"
            folder.mkdir()
            if merged and not full:
                tokenizer = _save_merged(finished, trained, folder, model_dir)
            else:
                for path in trained.iterdir():
                    if path.suffix == ".safetensors" or path.name in BESIDE_WEIGHTS:
                        shutil.copyfile(path, folder / path.name)
                tokenizer = _tokenizer(finished, trained, model_dir)
            if tokenizer:
                for trace in ("is_local", "local_files_only"):  # of this machine
                    tokenizer.init_kwargs.pop(trace, None)
                tokenizer.save_pretrained(folder)
            (folder / "run.json").write_text(record + "\n", encoding="utf-8")
            (folder / "README.md").write_text(readme, encoding="utf-8")
            shutil.rmtree(target, ignore_errors=True)
            folder.rename(target)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        cure = "free some space there, or check the base model's files"
        raise LabError(f"The files to publish cannot be put into '{_shown(target)}' ({reason}): {cure}.") from error
    return target


def _refuse_references(finished: Finished, record: str) -> None:
    """The lab writes no reference summary into a record, but a recipe's prompt may hold one. Those of a few words prove nothing."""
    references = {reference for prediction in finished.predictions for reference in prediction.references if reference.count(" ") > 2}
    if any(json.dumps(reference, ensure_ascii=False)[1:-1] in record for reference in references):
        raise LabError("Nothing was published, since a reference summary stands in run.json: take it out of the recipe and run again.")


def _tokenizer(finished: Finished, trained: Path, model_dir: str | None) -> Any:
    """The fully trained model's or the adapter's base's tokenizer; None where that base was a local one and is not given."""
    from transformers import AutoTokenizer

    if finished.method == "full":
        return AutoTokenizer.from_pretrained(trained, trust_remote_code=False)
    if finished.base_is_local and model_dir is None:
        return None
    folder = pretrained.checkpoint_folder(finished.settings(model_dir).recipe.model)
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def _save_merged(finished: Finished, adapter: Path, folder: Path, model_dir: str | None) -> Any:
    """Saves the base with the adapter merged into it, in the run's precision; returns the tokenizer.

    The base is loaded unquantized, since weights of 4 or 8 bits cannot hold the sum.
    """
    import torch

    base = models.load(finished.settings(model_dir), quantization="none")
    model = adapters.load_adapter(base, adapter).merge_and_unload()
    model.generation_config = generation.decoding(base)  # so that whoever loads it alone gets this run's decoding
    model.to(getattr(torch, finished.record["environment"]["precision"])).save_pretrained(folder)
    return base.tokenizer


def _shown(path: Path) -> Path:
    """A path without the folders that are nobody's business: runs/<recipe>/<method>/hub."""
    return Path(*path.parts[-4:])


def publish(finished: Finished, to: str, merged: bool = False, model_dir: str | None = None) -> str:
    """Uploads a finished run's model to the hub, public unless the owner's settings say otherwise, and returns its address.

    The repository is created if there is none. Weights of another kind that an earlier upload left there are taken away, since an
    adapter beside a merged model is what transformers would load; other files are left alone.

    Args:
        to: "owner/name". HF_ENDPOINT chooses another hub.
        merged, model_dir: as for `prepare`.

    Raises:
        LabError: a name that is none, no token, offline, unreachable or refused. The prepared folder stays, and the message says where.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(to)
        is_name = to.count("/") == 1
    except HFValidationError:
        is_name = False
    if not is_name:
        given = "a token" if str(to).startswith("hf_") else repr(to)
        raise LabError(f"publish_to takes owner/name, a name on the hub of letters, digits, - _ or .; got {given}.")
    secret, where = token()
    if secret and secret in json.dumps(finished.record):
        raise LabError("Nothing was published, since your token stands in run.json: take it out of the recipe and run again.")
    folder = prepare(finished, merged, to, model_dir)
    ready = f"the files are ready in {_shown(folder)}"
    if constants.HF_HUB_OFFLINE:
        raise LabError(f"Nothing was published, since HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set: unset it and start again; {ready}.")
    if secret is None:
        raise LabError(f"Nothing was published, since {where} hold no token: {CURES[environment.where()]}, then publish again; {ready}.")
    endpoint = (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")
    api = HfApi(endpoint=endpoint, token=secret)
    try:
        api.create_repo(to, exist_ok=True)
        message = f"Publish {finished.method} of {finished.record['recipe']}"
        with waiting(f"Uploading to {to}"):
            api.upload_folder(repo_id=to, folder_path=folder, commit_message=message, delete_patterns=REPLACED)
    except HfHubHTTPError as error:  # its cause holds the request, and that the token
        raise LabError(f"The upload was refused: {_refusal(error, to, where)}; {ready}.") from None
    except Exception as error:  # a network that fails has errors of several libraries
        host = urlsplit(endpoint).hostname or "the hub"
        reason = f"{host} cannot be reached or the connection broke ({type(error).__name__})"
        raise LabError(f"The upload did not get through: {reason}; check the network and publish again; {ready}.") from None
    return scrubbing.without_secrets(f"{endpoint}/{to}")


def _refusal(error, to: str, where: str) -> str:
    status = getattr(error.response, "status_code", None)
    if status == 401:
        return f"the hub does not accept the token from {where} (401), so make one with write permission in your settings there"
    if status == 403:
        return f"the token from {where} may not write to '{to}' (403), so give it write permission there, or use your own user name"
    return f"the hub does not take '{to}' (status {status}), so check the name there and publish again"
