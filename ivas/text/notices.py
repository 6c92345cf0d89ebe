"""What the assistant says aloud when it has to speak for itself.

One who only listens sees no error message. A language that is not here gets English,
which is better than silence; a new one is three short sentences.
"""
# ruff: noqa: RUF001 - the marks of all scripts are meant

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Notices:
    """In one language."""

    slow: str
    """The answer takes longer than people wait in silence."""
    failed: str
    """There will be no answer."""
    broken: str
    """The answer broke off after its first words."""


def notices(language: str | None) -> Notices:
    """In `language` (BCP 47), else in English."""
    return _NOTICES.get((language or "en").partition("-")[0].lower(), _NOTICES["en"])


_NOTICES = {
    "en": Notices(
        "One moment, please.",
        "Sorry, I cannot answer just now. Please ask me again.",
        "Sorry, I lost my thread. Please ask me again.",
    ),
    "bn": Notices(
        "একটু অপেক্ষা করুন।",
        "দুঃখিত, আমি এখন উত্তর দিতে পারছি না। অনুগ্রহ করে আবার জিজ্ঞাসা করুন।",
        "দুঃখিত, আমি কথার খেই হারিয়ে ফেলেছি। অনুগ্রহ করে আবার জিজ্ঞাসা করুন।",
    ),
    "de": Notices(
        "Einen Moment, bitte.",
        "Entschuldigung, ich kann gerade nicht antworten. Bitte frag mich noch einmal.",
        "Entschuldigung, ich habe den Faden verloren. Bitte frag mich noch einmal.",
    ),
    "es": Notices(
        "Un momento, por favor.",
        "Lo siento, ahora no puedo responder. Pregúntame otra vez, por favor.",
        "Lo siento, he perdido el hilo. Pregúntame otra vez, por favor.",
    ),
    "fr": Notices(
        "Un instant, s'il vous plaît.",
        "Désolé, je ne peux pas répondre pour le moment. Reposez votre question, s'il vous plaît.",
        "Désolé, j'ai perdu le fil. Reposez votre question, s'il vous plaît.",
    ),
    "hi": Notices(
        "एक क्षण रुकिए।",
        "माफ़ कीजिए, मैं अभी उत्तर नहीं दे पा रहा हूँ। कृपया फिर से पूछिए।",
        "माफ़ कीजिए, मेरी बात बीच में टूट गई। कृपया फिर से पूछिए।",
    ),
    "it": Notices(
        "Un momento, per favore.",
        "Scusa, adesso non riesco a rispondere. Chiedimelo di nuovo, per favore.",
        "Scusa, ho perso il filo. Chiedimelo di nuovo, per favore.",
    ),
    "pt": Notices(
        "Um momento, por favor.",
        "Desculpe, não consigo responder agora. Pergunte de novo, por favor.",
        "Desculpe, perdi o fio da conversa. Pergunte de novo, por favor.",
    ),
    "vi": Notices(
        "Xin chờ một chút.",
        "Xin lỗi, hiện giờ tôi chưa trả lời được. Xin hãy hỏi lại.",
        "Xin lỗi, tôi bị ngắt giữa chừng. Xin hãy hỏi lại.",
    ),
    "zh": Notices(
        "请稍等。",
        "抱歉，我现在无法回答，请再问一次。",
        "抱歉，我的回答中断了，请再问一次。",
    ),
}
