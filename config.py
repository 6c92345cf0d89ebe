"""What each IVAS_ENV runs: the one file to edit.

A plain Python program, run once at start-up. Every lower-case name below is a
group of settings; NAMES IN CAPITALS are its own. A variable such as
IVAS_TTS__SPEED=1.2 beats this file. See every setting, its value and where it came
from with `ivas config`; what each one means is in docs/configuration.md.
"""

import os

# development (the default): this machine's CPU, and of all engines the best that is ready.
# production: an NVIDIA GPU, faster-whisper, Ollama and XTTS; what is missing ends the start.
IVAS_ENV = os.environ.get("IVAS_ENV") or "development"
PRODUCTION = IVAS_ENV == "production"

# true or false; unset, only production speaks with the GPU.
TTS_USE_GPU = os.environ.get("TTS_USE_GPU") or PRODUCTION

# Beyond this machine (host "0.0.0.0") a key is required. Keep it out of this file:
# export IVAS_SERVER__API_KEY.
server = {"host": "127.0.0.1", "port": 8000}

# Hearing that somebody speaks: auto, silero, webrtc, fake. A noisy room wants 0.6 or 0.7.
vad = {"engine": "auto", "threshold": 0.5}

# Raise silence_ms if it answers before you have finished, lower it for quicker
# answers; raise barge_in_ms if a cough or an echo interrupts it.
turn = {"silence_ms": 500, "barge_in_ms": 192}

# Understanding what was said: auto, whisper, openai (a server at `url`), pocketsphinx
# (English), fake. `model` is a Whisper size: tiny, base, small, medium, large-v3-turbo.
asr = {"engine": "whisper" if PRODUCTION else "auto", "model": None, "language": None}

# Answering: auto, ollama, openai (a server at `url`), builtin, fake. `model` as in
# `ollama list`. `instructions` is its character; begin short, so that speech starts
# early: llm["instructions"] = "You are ... Begin with a short clause."
llm = {"engine": "ollama" if PRODUCTION else "auto", "model": None, "max_tokens": 1024}

# Speaking: auto, xtts, kokoro, piper, openai (a server at `url`), espeak, fake. speed
# 0.25 to 4, 1.0 is natural. The weights of XTTS may not be used commercially (CPML):
# tts["xtts_licence_accepted"] = True says that you know.
tts = {"engine": "xtts" if PRODUCTION else "auto", "voice": None, "speed": 1.0}
tts["use_gpu"] = TTS_USE_GPU
