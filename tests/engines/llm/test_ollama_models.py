"""Which model answers, and where Ollama is."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ivas.engines.llm.ollama_models import (
    InstalledModel,
    best_model,
    normalised_host,
    same_name,
)

GB = 1_000_000_000


def model(
    name: str, gigabytes: float = 2.0, *capabilities: str, family: str = ""
) -> InstalledModel:
    return InstalledModel(
        name, round(gigabytes * GB), family=family, capabilities=capabilities or ("completion",)
    )


def best(*models: InstalledModel) -> str | None:
    chosen = best_model(models)
    return chosen and chosen.name


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (model("llama3.1:8b", 4.9), model("llama3.2:3b", 2.0)),
        (model("llama3.2:3b", 2.0), model("llama3.3:70b", 42.5)),
        (model("llama3.1:70b", 40), model("llama3.3:70b", 42.5)),
        (model("llama3.2:1b", 1.3), model("qwen2.5-coder:7b", 4.7)),
        (model("llama3.2:1b", 1.3), model("codellama:7b", 3.8)),
        (model("llama3.2:1b", 1.3), model("llama3.2:3b-text-q4_0", 1.9)),
        (model("llama3.2:1b", 1.3), model("llama-guard3:8b", 4.9)),
        (model("gemma3:4b", 3.3), model("deepseek-r1:7b", 4.7)),
        (model("phi4-mini:3.8b", 2.5), model("phi4-mini-reasoning:3.8b", 3.2)),
        (model("qwen3:4b", 2.5), model("qwen3:4b-thinking", 2.6)),
        (model("mistral:7b", 4.1), model("mylittlemodel:7b", 4.2)),
        (model("someone/llama3-mine:8b", 4.7), model("mistral:7b", 4.1)),
        (model("a-model:1b", 1.0), model("b-model:1b", 1.0)),
        (model("codellama:7b", 3.8), model("gpt-oss:120b", 65)),
    ],
)
def test_the_better_of_two(better: InstalledModel, worse: InstalledModel) -> None:
    assert best(better, worse) == best(worse, better) == better.name


def test_what_cannot_converse_is_never_chosen() -> None:
    assert best() is None
    assert best(model("all-minilm", 0.1, "embedding")) is None
    assert best(InstalledModel("nomic-embed-text:latest", GB, capabilities=None)) is None
    assert best(InstalledModel("something:latest", GB, family="nomic-bert")) is None
    assert best(InstalledModel("llama3.2:3b", GB, family="llama", capabilities=None)) is not None


def test_nothing_leaves_the_house_unasked() -> None:
    assert best(model("gpt-oss:120b-cloud", 0), model("qwen3-coder:480b-cloud", 1e-6)) is None
    assert best(model("llama9:cloud", 0), model("tinyllama:1b", 0.6)) == "tinyllama:1b"


@given(st.randoms())
def test_the_order_of_the_list_does_not_matter(chance) -> None:
    models = [model(f"llama{i}:{j}b", j / 2) for i in range(3) for j in range(1, 20)]
    shuffled = random.Random(chance.random()).sample(models, len(models))
    assert best(*shuffled) == best(*models) == "llama0:12b"


def test_a_smaller_machine_takes_a_smaller_model() -> None:
    models = [model("llama3.1:8b", 4.9), model("llama3.2:1b", 1.3), model("llama3.2:3b", 2.0)]
    chosen = best_model(models, comfortable_bytes=2_500_000_000)
    assert chosen is not None
    assert chosen.name == "llama3.2:3b"


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("llama3.2:3b", ["llama3.2:3b"]),
        ("LLAMA3.2:3B", ["llama3.2:3b"]),
        ("library/llama3.2:3b", ["llama3.2:3b"]),
        ("registry.ollama.ai/library/llama3.2:3b", ["llama3.2:3b"]),
        ("mistral", ["mistral:latest"]),
        ("mistral:latest", ["mistral:latest"]),
        ("llama3.2", ["llama3.2:1b", "llama3.2:3b"]),
        ("qwen3", ["qwen3:4b"]),
        ("hf.co/Someone/Model-GGUF:Q4_K_M", ["hf.co/Someone/Model-GGUF:Q4_K_M"]),
        ("llama3.2:8b", []),
        ("llama3", []),
        ("", []),
    ],
)
def test_a_name_is_found_as_ollama_means_it(wanted: str, found: list[str]) -> None:
    names = ["llama3.2:1b", "llama3.2:3b", "mistral:latest", "mistral:7b", "qwen3:4b"]
    models = [InstalledModel(name) for name in [*names, "hf.co/Someone/Model-GGUF:Q4_K_M"]]
    assert [each.name for each in same_name(models, wanted)] == found


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("", "http://127.0.0.1:11434"),
        ("  ", "http://127.0.0.1:11434"),
        ("127.0.0.1", "http://127.0.0.1:11434"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("http://0.0.0.0:11434/", "http://127.0.0.1:11434"),
        (":8080", "http://127.0.0.1:8080"),
        ("box", "http://box:11434"),
        ("box:8080/", "http://box:8080"),
        ('"box"', "http://box:11434"),
        ("Box.Local", "http://box.local:11434"),
        ("http://box", "http://box:80"),
        ("HTTPS://box", "https://box:443"),
        ("https://box/ollama/", "https://box:443/ollama"),
        ("https://box:11434", "https://box:11434"),
        ("::1", "http://[::1]:11434"),
        ("[::1]:8080", "http://[::1]:8080"),
        ("[::]", "http://[::1]:11434"),
        ("::", "http://[::1]:11434"),
    ],
)
def test_an_address_is_read_as_ollama_reads_it(text: str, url: str) -> None:
    assert normalised_host(text) == url
    assert normalised_host(url) == url


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("ftp://box", "neither http nor https"),
        ("box:port", "port"),
        ("box:99999", "port"),
        ("a b", "character"),
        ("http://me:secret@box", "user name"),
        ("[::1", "host or port"),
    ],
)
def test_what_is_no_address_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why) as refusal:
        normalised_host(text)
    assert "secret" not in str(refusal.value)


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        url = normalised_host(text)
    except ValueError:
        return
    assert normalised_host(url) == url
