"""What each IVAS_ENV runs: the one file to edit.

A plain Python program, run once at start-up. Every lower-case name below is a
group of settings; NAMES IN CAPITALS are its own. A variable such as
IVAS_TTS__SPEED=1.2 beats this file. See every setting, its value and where it came
from with `ivas config`; what each one means is in docs/configuration.md.
"""

import os

# development (the default): this machine's CPU, the best engines that are ready.
# production: nothing is guessed, so `engine` must name one in asr, llm and tts.
IVAS_ENV = os.environ.get("IVAS_ENV") or "development"

# true or false; unset, only production speaks with the GPU.
TTS_USE_GPU = os.environ.get("TTS_USE_GPU") or IVAS_ENV == "production"

# Beyond this machine (host "0.0.0.0") a key is required. Keep it out of this file:
# export IVAS_SERVER__API_KEY.
server = {"host": "127.0.0.1", "port": 8000}

# Hearing that somebody speaks: auto, silero, fake. A noisy room wants 0.6 or 0.7.
vad = {"engine": "auto", "threshold": 0.5}

# Raise silence_ms if it answers before you have finished, lower it for quicker
# answers; raise barge_in_ms if a cough or an echo interrupts it.
turn = {"silence_ms": 500, "barge_in_ms": 192}

# Understanding what was said: auto, pocketsphinx (English), fake.
asr = {"engine": "auto", "language": None}

# Answering: auto, builtin, fake. `instructions` is its character; begin short, so
# that speech starts early: llm["instructions"] = "You are ... Begin with a short clause."
llm = {"engine": "auto", "max_tokens": 1024}

# Speaking: auto, espeak, fake. speed 0.25 to 4, 1.0 is natural.
tts = {"engine": "auto", "voice": None, "speed": 1.0, "use_gpu": TTS_USE_GPU}
