"""Whether what Whisper wrote was said at all.

Trained on subtitles, Whisper writes something for every sound it hears: thanks to
an audience in a breath, the same words over and over in noise. Judged here from
the text, how sure the model was and how much of the audio was voice. Pure.

The thresholds of `no_speech_prob`, `avg_logprob` and the compression ratio are
those of the paper's own decoding (Radford et al. 2022, section 4.5, and
https://github.com/openai/whisper, transcribe.py).
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from dataclasses import dataclass

NO_SPEECH_PROBABILITY = 0.6
UNSURE_LOGPROB = -1.0
MOST_COMPRESSION = 2.4
"""Text that zlib makes this many times smaller repeats itself."""
MOST_CHARS_PER_S = 25
"""Nobody speaks faster; fast English is 20. One short word more is let pass."""
SPARE_CHARS = 12
SHORT_SPEECH_S = 0.8
"""Up to this much voice a stock phrase is rather made up than said."""
DOUBTFUL_NO_SPEECH = 0.2
DOUBTFUL_LOGPROB = -0.6

RETRY_COMPRESSION = 2.0
"""From here on a decoding of cut-down context is not trusted and done again in full."""

_LOOPS = (
    re.compile(r"(?:^|\s)(\S+)(?:\s+\1){6,}(?:\s|$)"),  # a word 7 times; "stop" is said 4 times
    re.compile(r"(?:^|\s)(\S+(?:\s+\S+){1,7})(?:\s+\1){3,}(?:\s|$)"),  # up to 8 words 4 times
    re.compile(r"(\S{2,12}?)\1{5,}|(\S)\2{11,}"),  # scripts without spaces, "hahahahahaha"
)


def _letters(text: str) -> str:
    """Only letters and digits, in lower case: how phrases are compared."""
    return "".join(
        char
        for char in unicodedata.normalize("NFC", text).casefold()
        if unicodedata.category(char)[0] in "LMN"
    )


SUBTITLES = frozenset(
    _letters(line)
    for line in """\
Subtitles by the Amara.org community
Thanks for watching
Thank you for watching
Thank you so much for watching
Thank you very much for watching
I'll see you in the next video
See you in the next video
Please subscribe
Please subscribe to my channel
Don't forget to subscribe
Like and subscribe
Transcription by CastingWords
Untertitel der Amara.org-Community
Untertitel im Auftrag des ZDF für funk, 2017
Untertitelung des ZDF, 2020
Vielen Dank fürs Zuschauen
Copyright WDR 2021
Sous-titres réalisés par la communauté d'Amara.org
Sous-titres réalisés para la communauté d'Amara.org
Sous-titrage Société Radio-Canada
Merci d'avoir regardé cette vidéo
Subtítulos por la comunidad de Amara.org
Subtítulos realizados por la comunidad de Amara.org
Legendas pela comunidade Amara.org
Sottotitoli creati dalla comunità Amara.org
Sottotitoli a cura di QTSS
Ondertitels ingediend door de Amara.org gemeenschap
Napisy stworzone przez społeczność Amara.org
Altyazı M.K.
Продолжение следует
Редактор субтитров А.Синецкая Корректор А.Егорова
Субтитры сделал DimaTorzok
Спасибо за просмотр
اشتركوا في القناة
ترجمة نانسي قنقر
देखने के लिए धन्यवाद
ご視聴ありがとうございました
最後までご視聴ありがとうございました
チャンネル登録お願いします
字幕由Amara.org社区提供
请不吝点赞 订阅 转发 打赏支持明镜与点点栏目
谢谢大家观看
谢谢观看
시청해주셔서 감사합니다
구독과 좋아요 부탁드립니다
Cảm ơn các bạn đã theo dõi""".splitlines()  # noqa: RUF001 - other alphabets on purpose
)
"""What is written under films and said to no assistant."""

SMALL_TALK = frozenset(
    _letters(line)
    for line in """\
you
the
so
oh
uh
um
mm
mmm
hmm
yeah
ok
okay
bye
bye bye
goodbye
thanks
thank you
thank you very much
danke
vielen dank
gracias
merci
grazie
obrigado
спасибо
धन्यवाद
ありがとうございました
谢谢
감사합니다""".splitlines()
)
"""What Whisper likes to hear in a breath, and people do say: dropped only in doubt."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """What Whisper wrote for one window of audio."""

    text: str
    """As it came, with the space before it."""
    avg_logprob: float
    """Mean natural logarithm of the probability of its tokens, 0 or less."""
    no_speech_prob: float
    """How probably there is no speech in the window, 0..1."""


def made_up(decoding: Decoding, *, audio_s: float, voiced_s: float) -> bool:
    """Whether the text should be dropped. `audio_s` long, `voiced_s` of it not silence."""
    text = decoding.text.strip()
    unsure = decoding.avg_logprob < UNSURE_LOGPROB
    if decoding.no_speech_prob > NO_SPEECH_PROBABILITY and unsure:
        return True
    if compression_ratio(text) > MOST_COMPRESSION or loops(text):
        return True
    if len(text) > audio_s * MOST_CHARS_PER_S + SPARE_CHARS:
        return True
    return voiced_s <= SHORT_SPEECH_S and _stock_phrase(text, decoding)


def doubtful(decoding: Decoding) -> bool:
    """Whether a decoding of cut-down context should be done again in full."""
    text = decoding.text.strip()
    return (
        decoding.avg_logprob < UNSURE_LOGPROB
        or compression_ratio(text) > RETRY_COMPRESSION
        or loops(text)
    )


def compression_ratio(text: str) -> float:
    """How many times smaller zlib makes the UTF-8 of `text`; below 1 for short texts."""
    data = text.encode(errors="replace")
    return len(data) / len(zlib.compress(data))


def loops(text: str) -> bool:
    """Whether the same words, or the same characters, come again and again."""
    return any(pattern.search(text) for pattern in _LOOPS)


def _stock_phrase(text: str, decoding: Decoding) -> bool:
    phrase = _letters(text)
    in_doubt = (
        decoding.no_speech_prob > DOUBTFUL_NO_SPEECH or decoding.avg_logprob < DOUBTFUL_LOGPROB
    )
    return phrase in SUBTITLES or (in_doubt and phrase in SMALL_TALK)
