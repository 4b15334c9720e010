"""How a running gate is looked after: figures, health, logs, telemetry, and changes of its policy."""
