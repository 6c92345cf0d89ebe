"""`ivas doctor`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from .options import ConfigOption

if TYPE_CHECKING:
    from ivas.doctor import Check, Finding
    from ivas.doctor.network import Ollama
    from ivas.settings import Settings

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
    """All there is to look at, in the order it is shown."""
    from ivas.doctor import blocking, gpu, imports, models, network, packages, sound, system

    names = (settings.asr.engine, settings.tts.engine)
    needed = [name for name in names if name in packages.EXTRAS]
    host, port = settings.server.host, settings.server.port
    return [
        blocking("Python", lambda: [*system.python(), *system.installation()]),
        blocking("packages", lambda: packages.check(needed=needed)),
        blocking("native packages", lambda: imports.light(needed=needed)),
        blocking("torch", lambda: imports.torch_family(needed=needed)),
        blocking("GPU", lambda: [*gpu.nvidia_cards(wanted=_on_cuda(settings)), *gpu.apple()]),
        blocking("memory", system.memory_left),
        blocking("disk", lambda: system.disk(settings.models_dir)),
        blocking("models", lambda: models.check(settings.models_dir)),
        *_engines(settings),
        blocking("Ollama", lambda: network.ollama(_ollama(settings))),
        blocking("port", lambda: network.port(host, port)),
        blocking("sound", sound.devices),
        blocking("certificates", network.certificates),
        blocking("clock", lambda: [*system.clock(), *system.ffmpeg()]),
    ]


def _engines(settings: Settings) -> list[Check]:
    from functools import cache

    from ivas import composition
    from ivas.devices import settled
    from ivas.doctor.engines import Kind, checks
    from ivas.errors import SettingsError

    @cache
    def decided() -> Settings:
        try:
            return settled(settings, lambda warning: None)
        except SettingsError:  # the finding about the GPU says why
            return settings

    return checks(
        [
            Kind("vad", lambda: composition.choose_vad(decided()).candidates),
            Kind("asr", lambda: composition.choose_asr(decided()).candidates),
            Kind("llm", lambda: composition.choose_llm(decided()).candidates),
            Kind("tts", lambda: composition.choose_tts(decided()).candidates),
        ]
    )


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
