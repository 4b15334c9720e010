"""Benchmarks: one script per question; docs/performance.md has what they found."""
