"""The bridge's logger."""

from __future__ import annotations

import logging

logger = logging.getLogger("pyvfio_user.bridge")
