"""A real server, and a real headless Chromium whose microphone is a sound file."""

import os
import shutil
import socket
import subprocess
import sys
import threading
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soxr
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

ROOT = Path(__file__).parents[2]
CLIPS = ROOT / "tests" / "clips"
START_S = 60  # of a server, on a slow machine
WAIT_MS = 20_000  # of the page for anything

QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
]


class Server:
    """`python -m ivas serve` on a port of its own, with the embedded engines."""

    def __init__(self, **settings: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        inherited = {name: os.environ[name] for name in os.environ if not name.startswith("IVAS_")}
        self._environment = inherited | {
            "IVAS_VAD__ENGINE": "silero",
            "IVAS_ASR__ENGINE": "pocketsphinx",
            "IVAS_LLM__ENGINE": "builtin",
            "IVAS_TTS__ENGINE": "espeak",
            **settings,
        }
        self._process: subprocess.Popen[str] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Returns once it is ready."""
        command = [sys.executable, "-m", "ivas", "serve", "--port", str(self.port)]
        process = subprocess.Popen(
            command, cwd=ROOT, env=self._environment, stdout=subprocess.PIPE, text=True
        )
        self._process = process
        assert process.stdout is not None
        too_late = threading.Timer(START_S, process.kill)
        too_late.start()
        said = process.stdout.readline()
        too_late.cancel()
        if "ready" not in said:
            self.kill()
            pytest.fail(f"The server did not start; it said {said!r}, and more on stderr.")

    def kill(self) -> None:
        """Without a good-bye, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


class Visit:
    """One page in one browser context, and what went wrong in it."""

    def __init__(self, browser: Browser, server: Server) -> None:
        self.context = browser.new_context(viewport={"width": 1280, "height": 800})
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.complaints: list[str] = []
        self.foreign: list[str] = []
        self.sent: list[str] = []
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self._note("error", str(error)))
        self.page.on("request", lambda request: self._watch(request.url, server))
        self.page.on("websocket", lambda opened: opened.on("framesent", self._record))
        self.page.goto(server.url)

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(f"{kind}: {text}")

    def _watch(self, url: str, server: Server) -> None:
        if not url.startswith((server.url, "data:")):
            self.foreign.append(url)

    def _record(self, frame: str | bytes) -> None:
        text = frame if isinstance(frame, str) else frame.decode()
        if "input_audio_buffer.append" not in text:
            self.sent.append(text)

    def wait_state(self, *states: str) -> None:
        self.page.wait_for_function(
            "states => states.includes(document.body.dataset.state)", arg=list(states)
        )

    def wait_caption(self, role: str, pattern: str) -> None:
        """Until a caption of `role` matches `pattern`, a JavaScript regular expression."""
        self.page.wait_for_function(
            "([role, pattern]) => [...document.querySelectorAll('#captions .' + role)]"
            ".some(({ textContent }) => new RegExp(pattern, 'i').test(textContent))",
            arg=[role, pattern],
        )

    def wait_audible(self, milliseconds: int) -> None:
        """Until so much sound that is not silence has been played."""
        self.page.wait_for_function(
            "ms => Number(document.body.dataset.audibleMs) >= ms", arg=milliseconds
        )

    def type(self, text: str) -> None:
        self.page.fill("#message", text)
        self.page.press("#message", "Enter")


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    started = Server()
    yield started
    started.kill()


@pytest.fixture
def visit(playwright: Playwright, tmp_path: Path) -> Iterator[Callable[..., Visit]]:
    """visit(server, hears="name of a clip"): its microphone plays that, once."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    if chromium is None:
        pytest.skip("chromium is not installed; the page is tested in a real browser only")
    browsers = []

    def open_page(server: Server, *, hears: str | None = None, allow: bool = True) -> Visit:
        flags = [*QUIET]
        if allow:
            flags.append("--use-fake-ui-for-media-stream")
        if hears is not None:
            microphone = _microphone(CLIPS / f"{hears}.wav", tmp_path / "microphone.wav")
            flags.append(f"--use-file-for-fake-audio-capture={microphone}%noloop")
        browser = playwright.chromium.launch(executable_path=chromium, headless=True, args=flags)
        browsers.append(browser)
        return Visit(browser, server)

    yield open_page
    for browser in browsers:
        browser.close()


def _microphone(clip: Path, path: Path) -> Path:
    """The clip as Chromium wants it, 48 kHz, between a second of silence and two."""
    with wave.open(str(clip)) as source:
        rate = source.getframerate()
        said = np.frombuffer(source.readframes(source.getnframes()), "<i2")
    said = soxr.resample(said.astype("f4"), rate, 48_000).clip(-32768, 32767).astype("<i2")
    before, after = np.zeros(48_000, "<i2"), np.zeros(96_000, "<i2")
    with wave.open(str(path), "wb") as sink:
        sink.setnchannels(1)
        sink.setsampwidth(2)
        sink.setframerate(48_000)
        sink.writeframes(np.concatenate([before, said, after]).tobytes())
    return path
