"""What must not leave a machine: tokens, passwords, and the folders of whoever works there.

Texts keep everything else to the letter. E-mail addresses stay, since students sign their work, and so do addresses of web pages.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab_utils.errors import LabError

REMOVED = "[removed]"
IMAGES_KB = 300  # of all images in a notebook together; beyond that the largest go
NAMES_OF_SECRETS = ("TOKEN", "KEY", "SECRET", "PASSWORD")  # how the names of environment variables end
SHORTEST_SECRET = 8  # characters; a shorter value would also be found in ordinary words

# A pattern's group `kept` stays in place. No pattern repeats what may match in two ways, so each takes time in proportion to the text.
SECRETS = tuple(
    re.compile(pattern)
    for pattern in (
        r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----"  # PEM (RFC 7468)
        r"(?:[\w+/=\s\\,:]++|-(?!----))*(?:-----END [A-Z ]{0,30}PRIVATE KEY(?: BLOCK)?-----)?",
        r"(?=[AKeghsxy])(?<![A-Za-z0-9_])(?:"  # the first letters of what follows: most places are passed over at once
        r"hf_(?=[A-Za-z]{0,40}[A-Z0-9]|[a-z]{16})[A-Za-z0-9]{8,}"  # Hugging Face; hf_hub_download is a name
        r"|gh[opsru]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}"  # GitHub, GitLab
        r"|sk-(?=[A-Za-z0-9]{20}|[\w-]{0,40}?\d)[\w-]{17,}"  # OpenAI and others; sk-toggleable__label is a style of scikit-learn
        r"|(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"  # Amazon
        r"|AIza[\w-]{30,}|ya29\.[\w-]{20,}"  # Google
        r"|xox[a-z]-[A-Za-z0-9-]{10,}|KGAT_[0-9a-f]{32}"  # Slack, Kaggle
        r"|(?<!-)eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?"  # JSON Web Tokens (RFC 7519): a JSON object begins with eyJ
        r")",
        r"(?P<kept>Bearer\s{1,4})[\w.~+/-]{16,}={0,2}",
        r"(?P<kept>Authorization\\?[\"']?\s{0,4}[:=]\s{0,4}\\?[\"']?(?:Bearer|Basic|[Tt]oken)\s{1,4})[\w.~+/-]{4,}={0,2}",
        r"(?P<kept>://)[^\s/@:'\"<>{}$]{0,100}:[^\s/@'\"<>{}$]{1,200}(?=@)",  # user and password of an address
        r"(?P<kept>[?&](?:token|access_token|api_key|apikey)=)[\w.~+%-]{8,}",
        r"(?P<kept>[\"']key\\?[\"']\s{0,4}:\s{0,4}\\?[\"'])[0-9a-f]{32}(?=\\?[\"'])",  # kaggle.json
    )
)
_KAGGLE_KEY = re.compile(r"[0-9a-f]{32}")
_WORDS = re.compile(r"[A-Za-z]?[a-z]*(?:[-_./ ][A-Za-z]?[a-z]*)*")  # a secret made of plain words is not told from ordinary text

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_DATA_URI = re.compile(r"(data:[\w.+/-]{1,60}(?:;[\w=-]{1,40}){0,3};base64,[A-Za-z0-9+/=]+)")

_STARTS = r"(?:^|(?<=[\s'\"`(\[{=,;:|>@!“‘«„—–])|(?<=\\n)|(?<=\\t))"  # what may stand before a path; in "and/or" a letter does
_PART = r"[^\s/\\'\"<>|:;,()\[\]`]+"
_WINDOWS_PART = r"[^\s/\\:*?\"'<>|;,()\[\]{}]+"
_SPACED = r"[^\s/\\:*?\"'<>|{}](?:[^/\\:*?\"'<>|{}\r\n\t]{0,78}[^\s/\\:*?\"'<>|{}])?"  # a Windows name with spaces inside
_PATH = re.compile(
    r"(?=[:/~\\]|[A-Za-z]:|file:|vscode)(?:"  # how what follows begins
    r"(?P<page>://[^\s'\"<>]*)"  # the rest of a web address
    r"|(?:\bfile|\bvscode[\w-]{0,30}):/{1,3}(?P<url>[^\s'\"<>()]+)"
    rf"|{_STARTS}(?:"
    r"(?<=['\"])/(?:[^/'\"\\<>\n]{1,80}/)+[^/'\"\\<>\n]{1,200}/?(?=['\"])"  # between quotes a name may hold spaces
    rf"|/{_PART}(?:/+{_PART})+/?"
    rf"|~(?:[a-z_][\w-]*(?=/[^\s/]{{1,80}}/))?(?:/+{_PART})+/?"
    r")"
    rf"|(?<![A-Za-z0-9_])[A-Za-z]:(?=[\\/]+{_SPACED}[\\/]+[^\s\\/])"
    rf"(?:[\\/]+{_WINDOWS_PART}(?=[\\/])|\\+{_SPACED}(?=\\))*(?:[\\/]+(?:{_WINDOWS_PART})?)?"
    rf"|(?<![\w\\$])(?P<bar>\\{{1,2}})(?P=bar)[\w.$-]{{2,60}}(?:(?P=bar){_WINDOWS_PART}){{2,}})",  # \\server\share\folder, WSL
    re.MULTILINE,
)
_HOMES = ("home", "homes", "users", "documents and settings")  # folders whose folders are called like people

_PAPERMILL = ("parameters", "start_time", "end_time", "duration", "exception")
_BINARY = re.compile(r"(?:image/(?!svg)|audio/|video/|font/|application/(?:pdf|octet-stream))")
_BASE64 = re.compile(r"[A-Za-z0-9+/=\s]*")


def text(value: str) -> str:
    """The text with tokens and passwords replaced by `[removed]` and absolute paths cut to their last part."""
    return Scrubber().text(value)


def values(value: Any) -> Any:
    """A value as JSON holds it, with every text in it scrubbed, names included."""
    return Scrubber().values(value)


def without_secrets(value: Any) -> Any:
    """A text, or a value as JSON holds it, without tokens and passwords, for what is read where it was written: folders stay.

    A secret of the environment that could be ordinary words stays too, since a record must say to the letter what was done.
    """
    return Scrubber(folders=False).values(value)


def refuse(given: Mapping[str, Any]) -> None:
    """Nothing, where these values, each with what it is called, hold neither token nor password.

    Raises:
        LabError: one does. The sentence does not repeat it.
    """
    scrubber = Scrubber(folders=False)
    for name, value in given.items():
        scrubber.values(value)
        if scrubber.removed:
            raise LabError(
                f"{scrubber.text(name)} holds what looks like a token or a password, and a token is never a parameter: set HF_TOKEN in "
                "the environment, and take this out."
            )


def reason(error: BaseException) -> str:
    """The first line of what an error says, or its kind where it says nothing, scrubbed and without a full stop: part of a sentence."""
    return text((str(error).strip() or type(error).__name__).splitlines()[0]).rstrip(".")


def notebook(content: dict) -> dict:
    """A scrubbed copy of a notebook's JSON.

    Attachments, the state of widgets and all metadata but the kernel's, the tags and papermill's times and parameters are left out. Images
    stay, but above `IMAGES_KB` in total the largest are replaced by a text that says so. Texts are whole, not lists of lines.
    """
    return Scrubber().notebook(content)


class Scrubber:
    """Scrubs several files and counts what it replaced. It knows the secrets of this machine's environment when it is made.

    Without `folders` absolute paths stay, and so do secrets of the environment that are made of plain words.
    """

    def __init__(self, folders: bool = True) -> None:
        self.removed = 0
        self._folders = folders
        secrets = {
            value.strip()
            for name, value in os.environ.items()
            if name.upper().endswith(NAMES_OF_SECRETS) and len(value.strip()) >= SHORTEST_SECRET
            if folders or not _WORDS.fullmatch(value.strip())
        }
        known = "|".join(re.escape(secret) for secret in sorted(secrets, key=len, reverse=True))  # the longest first: one may begin another
        self._patterns = (re.compile(known), *SECRETS) if known else SECRETS
        self._user = Path(os.path.expanduser("~")).name

    def text(self, value: str) -> str:
        plain = _ANSI.sub("", value) if "\x1b" in value else value  # colours may begin inside a word
        pieces = _DATA_URI.split(plain)  # every second one is an image or a font written as letters
        pieces[::2] = map(self._scrubbed, pieces[::2])
        scrubbed = "".join(pieces)
        return value if scrubbed == plain else scrubbed

    def values(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {self.values(name): self._named(name, item) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.values(item) for item in value]
        return self.text(value) if isinstance(value, str) else value

    def notebook(self, content: dict) -> dict:
        cells = [self._cell(cell) for cell in dicts(content.get("cells"))]
        _drop_large_images(cells)
        metadata = _dict(content.get("metadata"))
        kept = {name: self.values(metadata[name]) for name in ("kernelspec", "language_info") if name in metadata}
        format_ = {name: content[name] for name in ("nbformat", "nbformat_minor") if isinstance(content.get(name), int)}
        return {"cells": cells, "metadata": kept | self._papermill(metadata), "nbformat": 4, "nbformat_minor": 5, **format_}

    def _scrubbed(self, piece: str) -> str:
        for pattern in self._patterns:
            piece, count = pattern.subn(_replaced, piece)
            self.removed += count
        return _PATH.sub(self._shortened, piece) if self._folders and ("/" in piece or "\\" in piece) else piece

    def _shortened(self, match: re.Match) -> str:
        """A path's last part; a person's own folder is `~`, since its name is the person's."""
        if match["page"]:
            return match[0]
        self.removed += 1
        *_, above, last = ["", "", *filter(None, re.split(r"[\\/]+", match["url"] or match[0]))]
        return "~" if above.lower() in _HOMES or last == self._user else last

    def _named(self, name: Any, value: Any) -> Any:
        """The value that stands under a name: a Kaggle key is known by it, and an image."""
        if name == "key" and isinstance(value, str) and _KAGGLE_KEY.fullmatch(value):
            self.removed += 1
            return REMOVED
        image = isinstance(value, str | list) and isinstance(name, str) and _BINARY.match(name)  # its metadata stand under the same name
        return self._shown(name, value) if image else self.values(value)

    def _cell(self, cell: dict) -> dict:
        metadata = _dict(cell.get("metadata"))
        tags = {"tags": self.values(metadata["tags"])} if isinstance(metadata.get("tags"), list) else {}
        kind = cell.get("cell_type") if cell.get("cell_type") in ("code", "markdown", "raw") else "raw"
        made = {"cell_type": kind, "metadata": tags | self._papermill(metadata), "source": self.text(joined(cell.get("source")))}
        if isinstance(cell.get("id"), str):
            made["id"] = self.text(cell["id"])
        if kind == "code":
            count = cell.get("execution_count")
            made["execution_count"] = count if isinstance(count, int) else None
            made["outputs"] = [self._output(output) for output in dicts(cell.get("outputs"))]
        return made

    def _papermill(self, metadata: dict) -> dict:
        found = _dict(metadata.get("papermill"))
        kept = {name: self.values(found[name]) for name in _PAPERMILL if name in found}
        return {"papermill": kept} if kept else {}

    def _output(self, output: dict) -> dict:
        kind = output.get("output_type")
        if kind == "stream":
            return {"output_type": kind, "name": self.values(output.get("name", "stdout")), "text": self.text(joined(output.get("text")))}
        if kind == "error":
            traceback = [self.text(line) for line in _list(output.get("traceback")) if isinstance(line, str)]
            return {
                "output_type": kind,
                **{name: self.values(output.get(name, "")) for name in ("ename", "evalue")},
                "traceback": traceback,
            }
        data = {mime: self._shown(mime, shown) for mime, shown in _dict(output.get("data")).items() if "widget" not in mime}
        count = {"execution_count": output.get("execution_count")} if kind == "execute_result" else {}
        kind = kind if kind == "execute_result" else "display_data"
        return {"output_type": kind, "data": data, "metadata": {}, **count}

    def _shown(self, mime: str, shown: Any) -> Any:
        if mime.endswith("json"):
            return self.values(shown)
        whole = joined(shown)
        return whole if _BINARY.match(mime) and _BASE64.fullmatch(whole) else self.text(whole)


def joined(lines: Any) -> str:
    """A text as notebooks hold it, whole or as a list of lines; anything else is no text."""
    return "".join(line for line in lines if isinstance(line, str)) if isinstance(lines, list) else lines if isinstance(lines, str) else ""


def _replaced(match: re.Match) -> str:
    return (match.groupdict().get("kept") or "") + REMOVED


def _drop_large_images(cells: list[dict]) -> None:
    """Replaces the largest images of these cells by a text, until the others have `IMAGES_KB` together."""
    outputs = [output["data"] for cell in cells for output in cell.get("outputs", []) if "data" in output]
    images = [(len(shown) * (1.0 if "svg" in mime else 0.75), data, mime)  # base64 writes 3 bytes as 4 letters
              for data in outputs for mime, shown in data.items() if mime.startswith("image/") and isinstance(shown, str)]  # fmt: skip
    images.sort(key=lambda image: image[0])
    total = sum(size for size, _, _ in images)
    while total > IMAGES_KB * 1000:
        size, data, mime = images.pop()
        del data[mime]
        data["text/plain"] = f"An image of {size / 1000:.0f} kB was left out: the images of a notebook may have {IMAGES_KB} kB together."
        total -= size


def _dict(value: Any) -> dict:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list:
    return value if isinstance(value, list) else []


def dicts(value: Any) -> list[dict]:
    """The objects of a list, as far as it is one and they are any."""
    return [item for item in _list(value) if isinstance(item, dict)]
