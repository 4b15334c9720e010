"""Fine-tuning against extraction, and what adaptive students still get after it (docs/harden.md)."""
