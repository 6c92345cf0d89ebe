"""What the built-in responder says, for the ear.

Each begins with a short clause of at most eight words, so that speech starts
early. Of several variants the next is taken each time: none is repeated at once.
"""

from __future__ import annotations

from collections.abc import Mapping

from ivas.engines.llm.intents import Intent

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July"),
    *("August", "September", "October", "November", "December"),
)

OPENING = "Hello, I am listening. Ask me what I can do."
NOTHING_HEARD = (
    "Sorry, I did not catch that. Please say it again.",
    "I heard no words. Could you say that once more?",
    "Still nothing, I am afraid. Please come closer to the microphone, and say it again.",
)
ENGLISH_ONLY = (
    "Sorry, I only know English. I am the built-in responder, and other languages need a "
    "language model."
)
UNKNOWN = (
    "I cannot answer that yet. It needs a language model, and I work without one. "
    "I can tell the time, work out sums, or tell a joke.",
    "That is beyond me. I am only the built-in responder. "
    "For real answers, ask me how to connect a language model.",
    "I do not know that one. Without a language model I only do small things. "
    "Try: what is seven times six?",
)
CONNECT = "You need a language model. I am only the built-in responder."
TRY_ME = "Ask me for the time, a sum or a story, and interrupt me whenever you like."
ASK_WORDS = "What should I repeat? Say it right after the words: repeat after me."
ASK_NAME = "What is your name?"

JOKES = (
    "Here is one. Why did the computer go to the doctor? It had caught a virus.",
    "Try this one. What do you call a bear without teeth? A gummy bear.",
    "All right, listen. Why was six afraid of seven? Because seven, eight, nine.",
    "One more, then. What did the ocean say to the beach? Nothing, it just waved.",
)
STORIES = (
    "Once, there was a lighthouse keeper. She lived alone on a small grey rock, far from the "
    "shore. Every evening she lit the lamp, and every evening she said good night to the sea. "
    "The sea never answered. One winter the lamp went out in a storm, and a ship was near. "
    "So she stood on the rock and called, again and again, into the dark. The sailors heard her "
    "voice, and turned in time. Since then, every ship that passes sounds its horn, and she "
    "says good night to each of them.",
    "Long ago, a clock fell in love. It stood in the hall, and across from it hung a mirror. "
    "All day long the clock looked at the other clock in the glass, whose hands went the wrong "
    "way round. You are always running away from me, said the clock. But twice a day, at twelve "
    "and at six, their hands were the same. And for those two minutes, the clock was happy.",
)

PLAIN: Mapping[Intent, tuple[str, ...]] = {
    "greeting": (
        "Hello, nice to hear you. What can I do for you?",
        "Hello again. What would you like?",
    ),
    "how_are_you": ("I am fine, thank you. And I hope you are too.",),
    "your_name": ("You can call me Ivas. I am the built-in responder.",),
    "who_are_you": (
        "I am the built-in responder. I am a small program without a language model, so I can "
        "do only a few things. Ask me what they are, or how to connect a language model.",
    ),
    "abilities": (
        "I can do a few small things. I tell the time and the date, work out sums, count, tell "
        "jokes and stories, flip a coin, repeat after you, and remember your name while we talk. "
        "For real answers, ask me how to connect a language model.",
    ),
    "can_you_hear": ("Yes, I can hear you. Go ahead.", "Yes, I am still here."),
    "thanks": ("You are welcome.", "With pleasure."),
    "goodbye": ("Goodbye, and take care.",),
    "stop": ("Okay. I am here when you need me.", "All right."),
    "demo": (f"Gladly, let us talk. {ASK_NAME}",),
    "test": ("The test works. I heard you well.",),
    "yes": ("Good. What would you like?",),
    "no": ("All right. I am here when you need me.",),
    "praise": ("Thank you, that is kind.",),
    "emergency": (
        "I cannot call anyone. Please phone your emergency number yourself, or call out to "
        "somebody near you.",
    ),
}
