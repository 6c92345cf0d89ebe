"""Every run draws the same examples, so that a red run is red for everybody.

`HYPOTHESIS_PROFILE=search` draws new ones and more of them.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_SLOW_MACHINE = [HealthCheck.too_slow]
settings.register_profile(
    "repeat", derandomize=True, deadline=None, suppress_health_check=_SLOW_MACHINE
)
settings.register_profile(
    "search", max_examples=1000, deadline=None, suppress_health_check=_SLOW_MACHINE
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))
