"""Speech to text on any server that speaks OpenAI's API: Speaches, vLLM, another IVAS, a cloud.

One POST {base_url}/audio/transcriptions with the whole utterance each time somebody waits
for its text. Such a server cannot be told more audio later, so partials would send all of
it again and again: they are asked for only if wanted, else answered with what is known.
"""

from __future__ import annotations

import asyncio
import re

import numpy as np

from ivas.audio.wav import wav_bytes
from ivas.engines import SAMPLE_RATE_HZ, Samples, Status, Transcript
from ivas.engines.openai_server import OpenaiServer, body_text, is_html, parsed
from ivas.errors import EngineError

DEFAULT_MODEL = "whisper-1"
"""The name most such servers know or ignore."""
MOST_SAMPLES = 600 * SAMPLE_RATE_HZ
"""The longest utterance, 10 minutes (19 MB; OpenAI takes 25); what comes after is not heard."""
SILENT_PEAK = 10 ** (-60 / 20)
"""Below -60 dBFS there is no microphone or it is off: nothing to ask."""


class OpenaiASR:
    """Transcribes through POST {base_url}/audio/transcriptions."""

    name = "openai"

    def __init__(
        self,
        *,
        base_url: str,
        api_key: str | None = None,
        model: str | None = None,
        language: str | None = None,
        timeout_s: float = 30.0,
        partials: bool = False,
    ) -> None:
        """`base_url`: with its /v1. `api_key`: shown to that server and to nobody else.
        `model`: None is whisper-1. `language`: what is spoken if an utterance does not say;
        None lets the server find out. `timeout_s`: longest wait for a whole answer.
        `partials`: whether partial transcripts are asked for too.
        """
        self._server = OpenaiServer(
            "transcription",
            part="ASR",
            url=base_url,
            key=api_key,
            example_url="http://127.0.0.1:8000/v1",
            again="say it again",
            at_home="set IVAS_ASR__ENGINE=whisper to transcribe at home",
        )
        self._model = model or DEFAULT_MODEL
        self._language = language
        self._timeout_s = timeout_s
        self.partials = partials

    def status(self) -> Status:
        return self._server.status()

    async def start(self) -> None:
        """Ask the server for its models; one that lists none may be one all the same."""
        await self._server.start(self._probe)

    def open(self, *, language: str | None = None, prompt: str | None = None) -> OpenaiUtterance:
        return OpenaiUtterance(self, language=language or self._language, prompt=prompt)

    async def aclose(self) -> None:
        await self._server.aclose()

    async def transcribe(self, wav: bytes, *, language: str | None, prompt: str | None) -> str:
        """One request. Tries even when not ready: a server that has come back is used at once.

        Keeps the status true; raises EngineError.
        """
        fields = {"model": self._model, "response_format": "json"}
        if language:
            fields["language"] = language.replace("_", "-").split("-")[0].lower()  # ISO 639-1
        if prompt:
            fields["prompt"] = prompt.encode(errors="replace").decode()  # no half surrogate pair
        with self._server.told(self._timeout_s):
            async with (
                asyncio.timeout(self._timeout_s),
                self._server.client.stream(
                    "POST",
                    "audio/transcriptions",
                    data=fields,
                    files={"file": ("speech.wav", wav, "audio/wav")},
                ) as response,
            ):
                text = await body_text(response)
            said = self._said(response.status_code, text)
        self._server.answered()
        return said

    async def _probe(self) -> None:
        status, text = await self._server.get("models")
        if status in (404, 405) and not is_html(text):
            return
        if status != 200:
            raise self._server.refusal(status, text)
        if parsed(text) is None:
            raise self._server.foreign()

    def _said(self, status: int, text: str) -> str:
        """The transcript in an answer. Raises EngineError."""
        if status != 200:
            raise self._refusal(status, text)
        if is_html(text):
            raise self._server.foreign()
        answer = parsed(text)
        said = answer.get("text") if isinstance(answer, dict) else None
        if not isinstance(said, str):
            raise self._server.garbled()
        return said.strip()

    def _refusal(self, status: int, text: str) -> EngineError:
        """What an answer other than a transcript means."""
        if status == 413:
            return EngineError(
                f"{self._server.at} takes no recordings this long; say less at once.",
                code="asr_too_long",
            )
        said = self._server.quoted(text)
        if status in (400, 404, 422) and re.search(r"\bmodel\b", said, re.I):
            return self._server.lacks("model", self._model, said)
        return self._server.refusal(status, text)


class OpenaiUtterance:
    """The audio of one stretch of speech, as the server gets it, and the last answer."""

    def __init__(self, engine: OpenaiASR, *, language: str | None, prompt: str | None) -> None:
        self._engine = engine
        self._language = language
        self._prompt = prompt
        self._pcm = bytearray()
        self._peak = 0.0
        self._last = Transcript("", 0, 0)
        self._closed = False

    def push(self, samples: Samples) -> None:
        if self._closed or not samples.size or len(self._pcm) // 2 >= MOST_SAMPLES:
            return
        self._peak = max(self._peak, float(np.abs(samples).max()))
        self._pcm += np.clip(samples * 32768, -32768, 32767).astype("<i2").tobytes()

    async def transcript(self, *, urgent: bool = True) -> Transcript:
        """See `Utterance`. A partial that is not asked for is the last answer once more."""
        if self._closed:
            raise _closed()
        last, end_sample = self._last, len(self._pcm) // 2
        if not urgent and not self._engine.partials:
            text, end_sample = last.text, last.end_sample
        elif self._peak < SILENT_PEAK:
            text = ""
        else:
            text = await self._engine.transcribe(
                wav_bytes(bytes(self._pcm), SAMPLE_RATE_HZ),
                language=self._language,
                prompt=self._prompt,
            )
            if self._closed:
                raise _closed()
        answer = Transcript(text, self._last.revision + 1, end_sample, self._language)
        self._last = answer
        return answer

    def close(self) -> None:
        self._closed = True
        self._pcm = bytearray()


def _closed() -> EngineError:
    return EngineError("This utterance is closed; open a new one to hear more.")
