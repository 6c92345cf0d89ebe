"""Keeps what a model thinks to itself out of what is spoken.

Reasoning models write `<think>...</think>` into their reply when the server does not
take it out. Nobody wants to hear it. The tags arrive cut anywhere, so what may be the
beginning of one is held back until the next token.
"""

from __future__ import annotations

_OPENING = ("<think>", "<thinking>")
_CLOSING = ("</think>", "</thinking>")


class ThoughtFilter:
    """Passes the tokens of one reply on, without the thoughts in them."""

    def __init__(self) -> None:
        self._held = ""
        self._thinking = False
        self._gap = True
        """What was passed on ends in white space, or nothing was: no more is needed."""
        self._after_thought = False

    def push(self, text: str) -> str:
        """What of the reply so far may be spoken and was not returned yet; may be empty.

        A closing tag that nothing opened is dropped (some models' prompts open it).
        """
        if "<" not in text and not (self._held or self._thinking):
            return self._passed(text)  # nearly every token
        self._held += text
        spoken = ""
        while True:
            tags = _CLOSING if self._thinking else _OPENING + _CLOSING
            at, tag = min(
                ((at, tag) for tag in tags if (at := self._held.find(tag)) >= 0),
                default=(len(self._held) - _begun(self._held, tags), ""),
            )
            if not self._thinking:
                spoken += self._passed(self._held[:at])
            self._held = self._held[at + len(tag) :]
            if not tag:
                return spoken
            self._thinking = tag in _OPENING
            self._after_thought = True

    def end(self) -> str:
        """What was held back and turned out to be no tag. The reply is over."""
        held, self._held = self._held, ""
        return "" if self._thinking else self._passed(held)

    def _passed(self, text: str) -> str:
        """`text`, without the white space that only set a thought apart."""
        if self._after_thought and self._gap:
            text = text.lstrip()
        if text:
            self._gap = text[-1].isspace()
            self._after_thought = False
        return text


def _begun(text: str, tags: tuple[str, ...]) -> int:
    """How many characters at the end of `text` may be the beginning of a tag."""
    longest = max(map(len, tags)) - 1
    for count in range(min(longest, len(text)), 0, -1):
        if any(tag.startswith(text[-count:]) for tag in tags):
            return count
    return 0
