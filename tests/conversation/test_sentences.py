"""The first clause comes at once, nothing is lost, and no word is torn apart."""
# ruff: noqa: RUF001 - the marks of all scripts are meant

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ivas.conversation.sentences import (
    FIRST_LONGEST,
    FIRST_WEIGHT,
    JOINED_WEIGHT,
    LONGEST,
    ClauseSplitter,
)

# What is awkward for a splitter, so that hypothesis need not find it letter by letter.
AWKWARD = st.sampled_from(
    [
        *".,;:!?…—-'\"()[]“”„«»*_`~ \n\r\t।॥،؛؟۔。！？、，；：",
        *("word", "a longer phrase of prose ", "42", "3.14", "1,000", "10:30", "...", "?!"),
        *("Dr.", "No.", "p.m.", "etc.", "U.S.", "e.g.", "https://example.com/a.b,c?d", "me@x.org"),
        *("नमस्ते", "আমি", "你好世界", "こんにちは", "안녕", "مرحبا", "สวัสดีครับ", "é", "👩‍🚀"),
    ]
)
TEXTS = st.lists(AWKWARD | st.text(max_size=8), max_size=80).map("".join)


def split(tokens: list[str]) -> list[str]:
    splitter = ClauseSplitter()
    pieces = [piece for token in tokens for piece in splitter.push(token)]
    return pieces + splitter.finish()


def tokens_of(text: str) -> list[str]:
    """As an LLM would cut it: words with the space before them, marks apart."""
    return re.findall(r"\s*\w+|\s*[^\w\s]|\s+", text)


def later(text: str) -> list[str]:
    """The pieces after a first clause that is out of the way."""
    first, *rest = split(["Let me see now,", *tokens_of(" " + text)])
    assert first == "Let me see now,"
    return [piece.strip() for piece in rest]


# --- laws ------------------------------------------------------------------------


@given(TEXTS, st.data())
@example("x" * 600, None)
@example(" " * 600, None)
@example("!" * 600, None)
@example("A sentence to begin with" + ".)" * 300, None)
def test_nothing_is_lost_and_no_piece_is_too_long(text: str, data: st.DataObject | None) -> None:
    size = data.draw(st.integers(1, 40)) if data else 1
    splitter = ClauseSplitter()
    pieces: list[str] = []
    for at in range(0, len(text), size):
        pieces += splitter.push(text[at : at + size])
        kept = at + size - sum(map(len, pieces))
        assert kept <= LONGEST + size + 2, "memory must stay bounded"
    pieces += splitter.finish()
    assert "".join(pieces) == text
    assert all(0 < len(piece) <= LONGEST for piece in pieces)
    assert all(len(piece) <= FIRST_LONGEST for piece in pieces[:1])
    assert all(piece.strip() or len(piece) > FIRST_LONGEST // 2 for piece in pieces[:-1])
    assert splitter.finish() == []


@given(TEXTS, st.lists(st.integers(0, 400)))
def test_after_the_first_clause_only_the_text_counts(text: str, cuts: list[int]) -> None:
    begin = "To begin with,"
    at = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    tokens = [text[start:end] for start, end in pairwise(at)]
    assert split([begin, *tokens]) == split([begin, text]) == split([begin, *text])


# --- the first clause ------------------------------------------------------------


@pytest.mark.parametrize(
    "clause",
    [
        "Sure thing friend,",
        "The answer is yes.",
        "Right away sir!",
        "Are you certain?",
        "There are two ways:",
        "It was raining;",
        "Well, I suppose so—",
        "Let me think about it…",
        "हाँ, मैं ठीक हूँ।",
        "হ্যাঁ, আমি ভালো আছি।",
        "أهلا وسهلا بك،",
        "کیا آپ ٹھیک ہیں؟",
        "جی میں ٹھیک ہوں۔",
        "你好我的朋友，",
        "こんにちは。",
        "안녕하세요!",
        "Բարեւ ձեզ բոլորիդ։",
    ],
)
@pytest.mark.parametrize("by_letter", [True, False])
def test_it_is_out_with_the_very_token_that_brings_its_mark(clause: str, by_letter: bool) -> None:
    splitter = ClauseSplitter()
    tokens = list(clause) if by_letter else [clause[:-3], clause[-3:]]
    *before, last = [splitter.push(token) for token in tokens]
    assert not any(before)
    assert last == [clause]
    assert splitter.finish() == []


@pytest.mark.parametrize(
    ("tokens", "first"),
    [
        (["Sure,", " I can do that", ",", " of course"], "Sure, I can do that,"),
        (["Hi!", " Yes.", " OK?", " Go on,", " then"], "Hi! Yes. OK? Go on,"),
        (["你好，", "我的朋友，", "再见"], "你好，我的朋友，"),
        (["a" * FIRST_WEIGHT, ",", " b"], "a" * FIRST_WEIGHT + ","),
        (["a" * (FIRST_WEIGHT - 1), ",", " b"], "a" * (FIRST_WEIGHT - 1) + ", b"),
        (["Sure!\n", "Here you go"], "Sure!"),
        (["\n\n", "Hello there", ","], "\n\nHello there,"),
    ],
)
def test_it_is_not_too_short(tokens: list[str], first: str) -> None:
    assert split(tokens)[0] == first


@pytest.mark.parametrize(
    ("tokens", "first"),
    [
        # What comes with the mark stays with it ...
        (["Is that really so", "?!", " Yes"], "Is that really so?!"),
        (["Let me think", "...", " Yes"], "Let me think..."),
        (['"That would be it', '."', " Yes"], '"That would be it."'),
        (["(So they have said", ".)", " Yes"], "(So they have said.)"),
        (["**Important note", ":**", " this"], "**Important note:**"),
        (["„Das ist sehr gut", ".“", " Ja"], "„Das ist sehr gut.“"),
        (["他说「可以的", "。」", "好"], "他说「可以的。」"),
        # ... and an open quote or bracket is waited for.
        (['"That would be it', ".", '"', " Yes"], '"That would be it."'),
        (["(So they have said", ".", ")", " Yes"], "(So they have said.)"),
        (["“That would be it", ",", "”", " he"], "“That would be it,”"),
        (["He told me “hi there", ",", " you”"], "He told me “hi there,"),
        # An opening quote belongs to what it opens.
        (["He said to me,", '"Hello."'], "He said to me,"),
        (["He said to me,“", "Hello.”"], "He said to me,"),
        (["他对我说的是：", "“好的。”"], "他对我说的是："),
        (["请你一定要注意：**", "重要**"], "请你一定要注意："),
    ],
)
def test_quotes_and_runs_of_marks(tokens: list[str], first: str) -> None:
    assert split(tokens)[0] == first


@pytest.mark.parametrize(
    ("tokens", "first"),
    [
        (["Roughly speaking ", "3", ".", "14", ",", " or so"], "Roughly speaking 3.14,"),
        (["It costs about 1", ",", "000", ",", " I think"], "It costs about 1,000,"),
        (["It costs about 5", ",", " I think"], "It costs about 5,"),
        (["We meet at 10", ":", "30", ".", " Fine"], "We meet at 10:30."),
        (["यह लगभग पाँच ३", ".", "५", " है,"], "यह लगभग पाँच ३.५ है,"),
        (["I saw the good Dr", ".", " Smith", ",", " he"], "I saw the good Dr. Smith,"),
        (["He is called John F", ".", " Kennedy", ",", " he"], "He is called John F. Kennedy,"),
        (["Shall we say 5 p", ".", "m", ".", " today", "?"], "Shall we say 5 p.m. today?"),
        (["I mean fruit e", ".", "g", ".", " apples", ","], "I mean fruit e.g. apples,"),
        (["Living in the U", ".", "S", ".", ", he"], "Living in the U.S.,"),
        (
            ["Have a look at https", "://", "example", ".com, now"],
            "Have a look at https://example.com,",
        ),
        (
            ["Have a look at www.", "example", ".", "com", "!", " Now"],
            "Have a look at www.example.com!",
        ),
        (["Please write to me", "@x", ".", "org", ".", " Now"], "Please write to me@x.org."),
        (["The file index", ".html", ",", " here"], "The file index.html,"),
        (["We use version v2", ".", "1", ".", "3", ".", " So"], "We use version v2.1.3."),
        (["The plain number 42", ".", " Next"], "The plain number 42."),
        (["I would rather say no", ".", " I", " think"], "I would rather say no."),
        (["I would rather say no", ".", " ", "I", " think"], "I would rather say no."),
        (["We have options a or b", ".", " I", " think"], "We have options a or b."),
        (["好的我们说英文.", "可以吗，好"], "好的我们说英文."),
    ],
)
def test_an_ambiguous_mark_waits_for_what_follows(tokens: list[str], first: str) -> None:
    assert split(tokens)[0] == first
    # The same if everything comes in one token.
    assert split(["".join(tokens)])[0] == first


def test_without_a_mark_it_ends_at_a_space() -> None:
    text = "so " * 60
    first = split(list(text))[0]
    assert len(first) <= FIRST_LONGEST
    assert first.endswith("so")


# --- the sentences after it ------------------------------------------------------


@pytest.mark.parametrize(
    "sentences",
    [
        [
            "It was seen by Dr. Smith and Prof. Jones at the hospital.",
            "Then they all went home at half past nine.",
        ],
        [
            "The whole thing has cost us 1,299.95 dollars so far.",
            "That is rather more than we thought, no?",
        ],
        [
            "The president of the U.S. lives at 1600 Pennsylvania Avenue.",
            "J. R. R. Tolkien never lived there at all, e.g. not in 1950.",
        ],
        [
            "The train to the city leaves at exactly 5 p.m.",
            "The one after that leaves at 6 p.m. from platform nine.",
        ],
        [
            "They sell apples, oranges, nuts, dates, etc. in that shop.",
            "They used to sell bread and butter and cheese etc.",
            "Now they have stopped doing all of that completely.",
        ],
        [
            "See page No. 5 and also Fig. 3 and pp. 10 to 12 for that.",
            "It is not what you were looking for, to put it mildly.",
        ],
        [
            "Go to https://example.com/a.b?c=d!e, or write to me@example.org.",
            "The file is called setup.cfg.old and v2.1.3 is its version.",
        ],
        [
            'She looked at all of them and said "that will be enough!"',
            "(Nobody had expected that to happen in the least.)",
            "Was it really that bad, or was it only a joke?!",
            "Well, it depends on the time of the day, I think...",
            "Maybe it would be better to ask somebody else.",
        ],
        [
            "Heute ist der 3. Mai und wir treffen uns bei Hrn. Meier z.B. am 5. Juni.",
            "Das ist bzw. war die Idee von Fr. Schmidt, d.h. von uns allen.",
        ],
        [
            "Nous avons vu M. Dupont et Mme. Martin devant la maison.",
            "Ils ne savaient pas du tout ce qui se passait ce jour.",
        ],
        [
            "El Sr. García y la Sra. López viven en la misma calle ahora.",
            "¿No sabía usted que ellos son vecinos desde siempre?",
        ],
        [
            "आज मौसम बहुत अच्छा है और डॉ. शर्मा भी यहाँ हैं।",
            "क्या आप मेरे साथ बाज़ार तक चलना चाहेंगे?",
            "मैं आपको वहाँ की सारी दुकानें दिखा दूँगा॥",
            "फिर हम साथ में चाय पी सकते हैं।",
        ],
        [
            "আজকের আবহাওয়া খুব সুন্দর এবং আকাশ পরিষ্কার।",
            "আপনি কি আমার সাথে বাজারে যেতে চান আজ বিকেলে?",
        ],
        [
            "ہم سب آج شام کو باغ میں سیر کے لیے جائیں گے۔",
            "کیا آپ بھی ہمارے ساتھ وہاں چلنا پسند کریں گے؟",
        ],
        [
            "الطقس جميل جدا اليوم ويمكننا الخروج في نزهة معا.",
            "هل تريد أن تأتي معنا إلى الحديقة الكبيرة مساء؟",
        ],
    ],
)
def test_sentences_of_many_kinds(sentences: list[str]) -> None:
    assert later(" ".join(sentences)) == sentences


@pytest.mark.parametrize(
    "sentences",
    [
        [
            "今天的天气非常好，我们可以一起出去走走。",
            "他对我说：“这件事情我们明天再慢慢讨论吧。”",
            "我同意！",
        ],
        [
            "今日はとても天気がよくて暖かいですね。",
            "一緒に公園まで散歩に行きませんか？",
            "いいですよ。",
        ],
        [
            "오늘은 날씨가 아주 좋아서 산책을 가고 싶어요.",
            "저와 함께 공원까지 걸어가시겠어요?",
        ],
    ],
)
def test_chinese_japanese_and_korean(sentences: list[str]) -> None:
    space = " " if " " in sentences[0] else ""
    assert later(space.join(sentences)) == sentences


def test_short_sentences_are_joined() -> None:
    text = "Yes. No. Perhaps so. I really do not know. Who does? Nobody that I met. The end."
    pieces = later(text)
    assert " ".join(pieces) == text
    assert pieces == [
        "Yes. No. Perhaps so. I really do not know. Who does?",
        "Nobody that I met. The end.",
    ]
    assert sum(map(str.isalnum, pieces[0])) >= JOINED_WEIGHT


def test_a_line_is_a_piece() -> None:
    pieces = split(["You need two things:\n", "- eggs\n- mi", "lk\r\n\n", "That is all.\n"])
    assert pieces == ["You need two things:", "\n- eggs", "\n- milk", "\r\n\nThat is all.", "\n"]


def test_a_long_sentence_is_cut_at_its_last_clause_mark() -> None:
    clause = "and then they walked on for 1,000 miles"
    text = ", ".join([clause] * 9) + "."
    pieces = later(text)
    assert " ".join(pieces) == text
    assert all(piece.endswith((",", ".")) for piece in pieces)
    assert all(80 < len(piece) <= 180 for piece in pieces[:-1])


def test_a_long_sentence_without_marks_is_cut_at_a_space() -> None:
    text = "and " * 100
    pieces = later(text)
    assert all(piece.startswith("and") and piece.endswith("and") for piece in pieces)
    assert len(pieces[0]) > LONGEST // 2


def test_thai_has_no_marks_and_its_signs_stay_on_their_letters() -> None:
    word = "ก็ดีแล้วน้ำใจที่นี้"  # nearly every letter carries a sign
    pieces = split(list(word * 40))
    assert all(len(piece) > LONGEST // 4 for piece in pieces[:-1])
    # Not at the head of a piece: no vowel sign or tone mark (Unicode category Mn).
    assert not any(re.match("[\u0e31\u0e34-\u0e3a\u0e47-\u0e4e]", piece) for piece in pieces)


def test_joined_emoji_are_not_torn_and_endless_signs_are() -> None:
    family = "\U0001f469\u200d" * 200
    assert all(not piece.startswith("\u200d") for piece in split([family]))
    assert "".join(split(["a" + "\u0301" * 600])) == "a" + "\u0301" * 600
