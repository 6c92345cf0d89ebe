"""Which model of an Ollama server answers, and where that server is. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

DEFAULT_PORT = 11434
SUGGESTION = "llama3.2:3b"
"""What to pull when there is no model: 2 GB, quick on a laptop, made for conversation."""

COMFORTABLE_BYTES = 6_000_000_000
"""The largest file that counts as fitting: 8 billion parameters in 4 bits are 4.9 GB, and with
8192 tokens of context fill a card of 8 GB, or half of a laptop's 16 GB."""

_CLOUD_MOST_BYTES = 1_000_000
"""A model that runs in Ollama's cloud is installed as a reference of a few hundred bytes."""

_CHATTY = (
    *("llama", "gemma", "qwen", "mistral", "ministral", "granite", "phi", "smollm", "command-r"),
    *(
        "aya",
        "hermes",
        "nous-hermes",
        "tulu",
        "olmo",
        "falcon",
        "exaone",
        "glm",
        "zephyr",
        "vicuna",
    ),
)
"""How the names of families begin that are trained for conversation."""
_SPECIAL = re.compile(
    r"code|codestral|math|sql|ocr|guard|shield|translate|reader"
    r"|moondream|llava|bakllava|[-:](base|text)\b"
)
"""Made for another work than conversation, or not taught to converse at all."""
_ALWAYS_THINKS = re.compile(
    r"gpt-oss|qwq|magistral|marco-o1|openthinker|deepthink|-r1\b|thinking|reason"
)
"""Thinks before every reply, which is silence for the one who waits."""
_EMBEDS = re.compile(r"embed|bge-|minilm|paraphrase|rerank")


@dataclass(frozen=True, slots=True)
class InstalledModel:
    """One model of the server."""

    name: str
    """With its tag: `llama3.2:3b`."""
    size_bytes: int = 0
    parameters: str = ""
    """How many it has, as Ollama puts it: `3.2B`."""
    quantisation: str = ""
    """`Q4_K_M`, `F16`, ..."""
    family: str = ""
    digest: str = ""
    capabilities: tuple[str, ...] | None = None
    """`completion`, `tools`, `thinking`, `vision`, `embedding`; None: not known."""

    def can(self, capability: str) -> bool | None:
        """None: the server is too old to say."""
        return None if self.capabilities is None else capability in self.capabilities

    @property
    def chats(self) -> bool:
        """Whether it can answer at all; models that only embed text cannot."""
        able = self.can("completion")
        embeds = "bert" in self.family.lower() or _EMBEDS.search(self.name.lower()) is not None
        return not embeds if able is None else able

    @property
    def in_cloud(self) -> bool:
        """Whether what it is told leaves this network."""
        tag = self.name.rpartition(":")[2]
        return tag.endswith("cloud") or 0 < self.size_bytes < _CLOUD_MOST_BYTES


def best_model(
    models: Sequence[InstalledModel], *, comfortable_bytes: int = COMFORTABLE_BYTES
) -> InstalledModel | None:
    """The model to converse with when none is named; None if there is none.

    Never one in the cloud: nothing leaves the house unasked. Of the others, in this order:
    one that fits (at most `comfortable_bytes`), made for conversation rather than for code or
    the like, that can answer without thinking first, of a family known for conversation;
    of those the largest (of those too large for the machine, the smallest), then by name.
    """

    def rank(model: InstalledModel) -> tuple[object, ...]:
        name = model.name.lower()
        fits = model.size_bytes <= comfortable_bytes
        return (
            not fits,
            _SPECIAL.search(name) is not None,
            _ALWAYS_THINKS.search(name) is not None,
            not name.rpartition("/")[2].startswith(_CHATTY),
            -model.size_bytes if fits else model.size_bytes,
            name,
        )

    able = [model for model in models if model.chats and not model.in_cloud]
    return min(able, key=rank, default=None)


def same_name(models: Sequence[InstalledModel], wanted: str) -> tuple[InstalledModel, ...]:
    """The model called `wanted`; if that has no tag and is not `:latest`, all tags of it."""
    full = plain_name(wanted)
    names = {plain_name(model.name): model for model in models}
    for name in (full, f"{full}:latest"):
        if name in names:
            return (names[name],)
    return tuple(model for name, model in names.items() if name.rpartition(":")[0] == full)


def plain_name(name: str) -> str:
    """As Ollama compares names: no case, and its own registry goes without saying."""
    return re.sub(r"^((registry\.)?ollama\.(ai|com)/)?(library/)?", "", name.strip().lower())


def normalised_host(text: str) -> str:
    """The base URL for what OLLAMA_HOST may hold: `0.0.0.0`, `box:8080`, `https://box/path/`.

    As Ollama reads it: http and port 11434 unless said otherwise, but a written scheme brings
    its own port (80, 443). "Every address" is where a server listens, nowhere to connect to:
    it means this machine. Raises ValueError, with a clause that says what is wrong.
    """
    text = text.strip().strip("\"'").strip()
    scheme, found, rest = text.partition("://")
    if not found:
        scheme, rest = "http", text
    port = {"http": 80, "https": 443}.get(scheme.lower()) if found else DEFAULT_PORT
    if port is None:
        raise ValueError(f"{scheme} is neither http nor https")
    if not found and rest.count(":") > 1 and not rest.startswith("["):
        rest = f"[{rest}]"  # a bare IPv6 address
    if not all("!" <= char <= "~" for char in rest):
        raise ValueError("it holds a character that no address has")
    try:
        parts = urlsplit(f"{scheme.lower()}://{rest}")
        port = parts.port or port
    except ValueError:
        raise ValueError("its host or port is none") from None
    if parts.username is not None:
        raise ValueError("it holds a user name, which Ollama does not know")
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(
        parts.hostname or "", parts.hostname or ""
    )
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}:{port}{parts.path.rstrip('/')}"
