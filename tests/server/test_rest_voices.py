"""What Open WebUI asks for before it lets anybody choose a voice."""

from __future__ import annotations

import rest_app

from ivas.engines.fake import FakeTTS
from ivas.server.rest_voices import voices_router


async def test_voices_and_models() -> None:
    router = voices_router(FakeTTS, model="ivas", admit=rest_app.everybody)
    async with rest_app.client(router) as http:
        voices = (await http.get("/v1/audio/voices")).json()["voices"]
        assert [voice["id"] for voice in voices] == ["fake-low", "fake-middle", "fake-high"]
        assert voices[0] == {"id": "fake-low", "name": "Tone of 300 Hz", "language": "en"}
        models = (await http.get("/v1/audio/models")).json()
        assert models == {"models": [{"id": "ivas", "name": "ivas"}]}


async def test_only_for_who_may_speak() -> None:
    router = voices_router(FakeTTS, model="ivas", admit=rest_app.nobody)
    async with rest_app.client(router) as http:
        for path in ("/v1/audio/voices", "/v1/audio/models"):
            answer = await http.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "not_for_speech")
