"""The page in a real browser, on a real server: talk to it, and hear it answer."""

import json
from collections.abc import Callable, Iterator

import pytest

from .conftest import Server, Visit

pytestmark = [pytest.mark.browser, pytest.mark.slow]

Open = Callable[..., Visit]


def test_a_spoken_question_is_answered_aloud(server: Server, visit: Open) -> None:
    opened = visit(server, hears="what_time_is_it_rms")
    opened.wait_state("ready")
    opened.page.click("#talk")
    opened.wait_state("listening")
    opened.wait_state("hearing")
    opened.wait_caption("user", "time is it")  # the browser's filters may change a "what"
    opened.wait_caption("assistant", r"it is \d")
    opened.wait_audible(500)
    opened.wait_state("listening")
    assert opened.page.get_attribute("body", "data-underruns") == "0"
    assert opened.complaints == []
    assert opened.foreign == []


def test_a_typed_question_is_answered_aloud(server: Server, visit: Open) -> None:
    opened = visit(server)
    opened.wait_state("ready")
    opened.type("what is five plus three")
    opened.wait_caption("user", "what is five plus three")
    opened.wait_caption("assistant", r"\b(8|eight)\b")
    opened.wait_audible(300)
    opened.wait_state("ready")
    assert opened.complaints == []


def test_speaking_over_the_answer_interrupts_it(server: Server, visit: Open) -> None:
    opened = visit(server, hears="what_time_is_it_slt")
    opened.wait_state("ready")
    opened.type("tell me a story")
    opened.wait_audible(200)
    opened.page.click("#talk")
    opened.wait_caption("assistant", "You interrupted here")
    opened.wait_caption("user", "what time is it")
    opened.wait_caption("assistant", r"\bit is\b|o'clock|:\d\d")
    heard, cut = opened.page.evaluate(
        "() => [document.querySelector('#captions .assistant').childNodes[1].textContent,"
        " document.querySelector('#captions s').textContent]"
    )
    assert heard.strip()
    assert cut.strip()
    truncations = [frame for frame in map(json.loads, opened.sent) if "audio_end_ms" in frame]
    assert len(truncations) == 1
    # It sounded for more than the 200 ms waited for, and for less than the whole story.
    assert 200 <= truncations[0]["audio_end_ms"] < 15_000
    assert opened.complaints == []


def test_escape_stops_the_answer(server: Server, visit: Open) -> None:
    opened = visit(server)
    opened.wait_state("ready")
    opened.type("tell me a story")
    opened.wait_audible(200)
    assert opened.page.is_enabled("#stop")
    opened.page.keyboard.press("Escape")
    opened.wait_state("ready")
    opened.wait_caption("assistant", "You interrupted here")
    assert opened.page.is_disabled("#stop")
    kinds = [json.loads(frame)["type"] for frame in opened.sent]
    assert "conversation.item.truncate" in kinds
    assert opened.page.is_hidden("#notice")
    assert opened.complaints == []


def test_a_refused_microphone_leaves_the_keyboard(server: Server, visit: Open) -> None:
    opened = visit(server, allow=False)
    opened.wait_state("ready")
    opened.page.click("#talk")
    opened.page.wait_for_selector("#notice:has-text('microphone')")
    opened.wait_state("ready")
    opened.type("what is five plus three")
    opened.wait_caption("assistant", r"\b(8|eight)\b")
    assert opened.page.is_hidden("#notice")


@pytest.fixture
def other_server() -> Iterator[Callable[..., Server]]:
    """A server of the test's own, to be mistreated."""
    started: list[Server] = []

    def start(**settings: str) -> Server:
        started.append(Server(**settings))
        return started[-1]

    yield start
    for server in started:
        server.kill()


def test_a_server_that_comes_back_goes_on(other_server: Callable[..., Server], visit: Open) -> None:
    server = other_server()
    opened = visit(server)
    opened.type("what is five plus three")
    opened.wait_caption("assistant", r"\b(8|eight)\b")
    opened.wait_state("ready")
    server.kill()
    opened.wait_state("offline")
    assert opened.page.inner_text("#status") == "The server cannot be reached. Trying again …"
    assert opened.page.is_visible("#retry")
    server.start()
    opened.wait_state("ready")
    replayed = [frame for frame in opened.sent if "output_text" in frame]
    assert len(replayed) == 1, "the new server is told what was said"
    opened.type("what is seven times six")
    opened.wait_caption("assistant", r"\b(42|forty.?two)\b")


def test_a_server_with_a_key_asks_for_it(other_server: Callable[..., Server], visit: Open) -> None:
    opened = visit(other_server(IVAS_SERVER__API_KEY="open-sesame-123"))
    opened.wait_state("locked")
    opened.page.fill("#key", "wrong")
    with opened.page.expect_websocket() as refused:
        opened.page.press("#key", "Enter")
    if not refused.value.is_closed():
        refused.value.wait_for_event("close")
    opened.wait_state("locked")
    opened.page.fill("#key", "open-sesame-123")
    opened.page.press("#key", "Enter")
    opened.wait_state("ready")
    opened.page.reload()
    opened.wait_state("ready")
    assert opened.page.is_hidden("#unlock")
