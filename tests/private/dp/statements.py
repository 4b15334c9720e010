"""Statements for tests."""

from typing import Any

from palladion.private.dp.statement import PrivacyStatement


def statement(**changes: Any) -> PrivacyStatement:
    """One of a descent of 60 steps at ε = 4, whose figures come to what it states."""
    figures: dict[str, Any] = {
        "epsilon": "4",
        "delta": "1e-4",
        "mechanism": "noisy-gradient-descent",
        "accountant": "analytic-gaussian",
        "noise_multiplier": "8",
        "sampling_rate": "1",
        "steps": 60,
        "clipping": "0.5",
        "rows": 1437,
        "noise": "cryptographic",
        "libraries": {"numpy": "2.4.6"},
    }
    return PrivacyStatement(**(figures | changes))
