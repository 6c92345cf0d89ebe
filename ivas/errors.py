"""Everything that can go wrong, by who can mend it.

IvasError                 the root; `str(error)` is one plain sentence for a person
├── SettingsError         the operator mends it: a setting, a file, a missing package
├── EngineError           an engine failed at its work; carries a code for the wire
│   ├── EngineUnavailable it cannot start here: package, model or device missing
│   └── EngineTimeout     it did not answer in time
└── ClientError           the client sent something wrong; carries a Realtime error code

A sentence says what happened, why, and what to do next. No stack trace ever
reaches a user: whoever catches one of these shows `str(error)`; anything else
is logged with its trace and shown as a plain apology.
"""

from __future__ import annotations


class IvasError(Exception):
    """The root of every error IVAS raises on purpose."""


class SettingsError(IvasError):
    """A setting or the installation is wrong; start-up ends with this sentence."""


class EngineError(IvasError):
    """An engine failed while working.

    `code` is machine-readable and goes to the client in `response.done`
    (`status_details.error.code`) or in a transcription failure.
    """

    def __init__(self, message: str, *, code: str = "engine_failed") -> None:
        super().__init__(message)
        self.code = code


class EngineUnavailable(EngineError):
    """An engine cannot start on this machine; the sentence holds the fix."""

    def __init__(self, message: str, *, code: str = "engine_unavailable") -> None:
        super().__init__(message, code=code)


class EngineTimeout(EngineError):
    """An engine did not answer within its deadline."""

    def __init__(self, message: str, *, code: str = "engine_timeout") -> None:
        super().__init__(message, code=code)


class ClientError(IvasError):
    """A client's event was wrong; answered with a Realtime `error`, session open.

    `code` and `param` are those of the OpenAI Realtime API: `invalid_value`,
    `missing_required_parameter`, `input_audio_buffer_commit_empty`, ...
    """

    def __init__(self, message: str, *, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param
