"""Is this file safe to open? An allow-list: what is not known to be mere data is refused.

Today it knows ONNX and safetensors, the formats that `protect` reads. Anything else is refused.
"""

from palladion.scan.scanner import Scanned, scan_file
from palladion.scan.verdict import RULES, Finding, Verdict

__all__ = ["RULES", "Finding", "Scanned", "Verdict", "scan_file"]
