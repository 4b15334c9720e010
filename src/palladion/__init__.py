"""Palladion protects AI models from theft over their whole life; see README.md and docs/."""

__version__ = "0.1.0"
