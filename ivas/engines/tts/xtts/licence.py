"""The licence of the XTTS weights: for whom they are, and how one says yes to it."""

from __future__ import annotations

NAME = "Coqui Public Model License 1.0.0 (CPML)"
URL = "https://coqui.ai/cpml"
SUMMARY = "non-commercial use only"

NOT_ACCEPTED = (
    f"xtts cannot speak yet because its weights are under the {NAME}: {SUMMARY} ({URL}); if you "
    "accept that, set IVAS_TTS__XTTS_LICENCE_ACCEPTED=true, or run: ivas models download xtts-v2, "
    "which asks once."
)
