"""Is this file safe to open? What is not known to be mere data is refused (docs/scan.md).

`scan_file` reads a model and scans what was read, for those who go on to use it; `scan_path` judges any file,
`scan_folder` all in a folder.
"""

from palladion.scan.folders import scan_folder
from palladion.scan.scanner import Scanned, scan_file, scan_path
from palladion.scan.verdict import RULES, Finding, Verdict

__all__ = ["RULES", "Finding", "Scanned", "Verdict", "scan_file", "scan_folder", "scan_path"]
