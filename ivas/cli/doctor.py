"""`ivas doctor`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import ConfigOption

if TYPE_CHECKING:
    from ivas.choice import Choice
    from ivas.doctor import Check, Finding
    from ivas.doctor.network import Ollama
    from ivas.settings import Settings

EXTRA_OF = {"pocketsphinx": "embedded"}
"""Engines whose extra has another name than they."""
COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


def doctor(
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Look at everything IVAS needs, and say how to mend what is amiss."""
    import asyncio

    from ivas.doctor import Finding, examine, in_two
    from ivas.errors import SettingsError
    from ivas.settings import Settings
    from ivas.settings_sources import resolve

    try:
        resolved = resolve(config)
        settings = resolved.settings
        said = f"IVAS_ENV={settings.env}, from {resolved.config or 'the defaults'}"
        first = Finding("settings", "ok", said)
    except SettingsError as error:
        # Everything else is still worth looking at: with the defaults.
        settings = Settings()
        first = Finding("settings", "fail", *in_two(str(error)))
    findings = (first, *asyncio.run(examine(checks(settings))))
    if as_json:
        _print_json(findings)
    else:
        _print(findings)
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)


def checks(settings: Settings) -> list[Check]:
    """All there is to look at, in the order it is shown.

    Each look imports what it needs itself: in an installation that is broken the others
    still work, and its own failure is a finding.
    """
    from ivas.doctor import blocking

    named = (settings.asr.engine, settings.tts.engine)
    needed = [EXTRA_OF.get(name, name) for name in named]

    def python() -> Sequence[Finding]:
        from ivas.doctor import system

        return [*system.python(), *system.installation()]

    def packages() -> Sequence[Finding]:
        from ivas.doctor import packages

        return packages.check(needed=needed)

    def native() -> Sequence[Finding]:
        from ivas.doctor import imports

        return imports.light(needed=needed)

    def torch() -> Sequence[Finding]:
        from ivas.doctor import imports

        return imports.torch_family(needed=needed)

    def gpu() -> Sequence[Finding]:
        from ivas.doctor import gpu

        return [*gpu.nvidia_cards(wanted=_on_cuda(settings)), *gpu.apple()]

    def memory_and_disk() -> Sequence[Finding]:
        from ivas.doctor import system

        return [*system.memory_left(), *system.disk(settings.models_dir)]

    def models() -> Sequence[Finding]:
        from ivas.doctor import models

        return models.check(settings.models_dir)

    def ollama() -> Sequence[Finding]:
        from ivas.doctor import network

        return network.ollama(_ollama(settings))

    def port() -> Sequence[Finding]:
        from ivas.doctor import network

        return network.port(settings.server.host, settings.server.port)

    def sound() -> Sequence[Finding]:
        from ivas.doctor import sound

        return sound.devices()

    def trust() -> Sequence[Finding]:
        from ivas.doctor import network, system

        return [*network.certificates(), *system.clock(), *system.ffmpeg()]

    return [
        blocking("Python", python),
        blocking("packages", packages),
        blocking("native packages", native),
        blocking("torch", torch),
        blocking("GPU", gpu),
        blocking("memory", memory_and_disk),
        blocking("models", models),
        *_engines(settings),
        blocking("Ollama", ollama),
        blocking("port", port),
        blocking("sound", sound),
        blocking("certificates", trust),
    ]


def _engines(settings: Settings) -> list[Check]:
    """One check for each kind of engine."""
    from functools import cache

    from ivas.doctor import Check

    @cache
    def decided() -> Settings:
        from ivas.devices import settled
        from ivas.errors import SettingsError

        try:
            return settled(settings, lambda warning: None)
        except SettingsError:  # the finding about the GPU says why
            return settings

    def of(kind: str) -> Check:
        async def look() -> Sequence[Finding]:
            from ivas import composition
            from ivas.doctor.engines import Kind, examined

            choose: dict[str, Callable[[Settings], Choice[Any]]] = {
                "vad": composition.choose_vad,
                "asr": composition.choose_asr,
                "llm": composition.choose_llm,
                "tts": composition.choose_tts,
            }
            return await examined(Kind(kind, lambda: choose[kind](decided()).candidates))

        return Check(f"{kind} engine", look)

    return [of(kind) for kind in ("vad", "asr", "llm", "tts")]


def _on_cuda(settings: Settings) -> list[str]:
    """The engines that are set to run on an NVIDIA card."""
    device = settings.asr.device
    hears = device == "cuda" or (device == "auto" and settings.env == "production")
    wanted = ["Whisper"] if hears and settings.asr.engine in ("auto", "whisper") else []
    speaks = settings.tts.use_gpu and settings.tts.engine in ("auto", "xtts")
    return [*wanted, "XTTS"] if speaks else wanted


def _ollama(settings: Settings) -> Ollama:
    from ivas.doctor.network import Ollama
    from ivas.engines.llm.ollama_models import normalised_host

    try:
        host = normalised_host(settings.llm.host)
    except ValueError:
        host = settings.llm.host  # it will not answer, and the finding names it
    return Ollama(host, settings.llm.model, needed=settings.llm.engine == "ollama")


def _print_json(findings: Sequence[Finding]) -> None:
    import json
    from dataclasses import asdict

    ok = not any(finding.state == "fail" for finding in findings)
    body = {"ok": ok, "findings": [asdict(finding) for finding in findings]}
    print(json.dumps(body, indent=2, ensure_ascii=False))


def _print(findings: Sequence[Finding]) -> None:
    from rich.console import Console
    from rich.text import Text

    # Nothing is wrapped, so that a command can be copied in one piece.
    console = Console(soft_wrap=True, highlight=False)
    width = max(len(finding.name) for finding in findings)
    shown = None
    for finding in findings:
        name = "" if finding.name == shown else finding.name
        shown = finding.name
        line = Text(f"{finding.state:<4}", COLOURS[finding.state])
        console.print(line.append(f"  {name:<{width}}  {finding.what}", "default"))
        if finding.fix is not None:
            console.print(Text(f"{'':<{width + 8}}{finding.fix}", "cyan"))
    count = {state: sum(one.state == state for one in findings) for state in COLOURS}
    if count["fail"]:
        last = f"{count['fail']} to mend, {count['warn']} to know about: what to do is below each."
    elif count["warn"]:
        last = f"IVAS works here; {count['warn']} things to know about."
    else:
        last = "IVAS works here."
    console.print(Text(f"\n{last}", "bold"))
