"""IVAS: a private, self-hosted, real-time voice assistant."""

import os

__version__ = "0.1.0"

# onnxruntime (1.31 on Linux) reports its use to its maker unless this stands in the
# environment before it is imported; asking it later to stop is too late. Who talks to
# IVAS is nobody else's business.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
