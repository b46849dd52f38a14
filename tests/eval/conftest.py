"""Makes the fakes of this folder importable in every import mode of pytest, and one toy model for all of them."""

import sys
from pathlib import Path

from tests.toy_model import toy_model  # noqa: F401 - fixture

sys.path.insert(0, str(Path(__file__).parent))
