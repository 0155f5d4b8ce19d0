"""The package ``release`` is in the repository only."""

from __future__ import annotations

import sys
from pathlib import Path

# Behind the installed package, which is the one to be tested.
sys.path.append(str(Path(__file__).resolve().parents[2]))
