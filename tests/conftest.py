"""Every run draws the same examples, so that a red run is red for everybody.

`HYPOTHESIS_PROFILE=search` draws new ones and more of them.
"""

from __future__ import annotations

import os
import tempfile

from hypothesis import HealthCheck, settings

# Whatever the person who runs the tests has at home (keys, models) has no part in them, and
# nothing is fetched. What a test starts inherits this.
_home = tempfile.TemporaryDirectory(prefix="ivas-tests-")
os.environ |= {
    "XDG_CACHE_HOME": _home.name,
    "XDG_CONFIG_HOME": _home.name,
    "IVAS_OFFLINE": "1",
    "IVAS_LLM__HOST": "http://127.0.0.1:9",  # nobody: an Ollama of this machine has no part
}

_SLOW_MACHINE = [HealthCheck.too_slow]
settings.register_profile(
    "repeat", derandomize=True, deadline=None, suppress_health_check=_SLOW_MACHINE
)
settings.register_profile(
    "search", max_examples=1000, deadline=None, suppress_health_check=_SLOW_MACHINE
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))
