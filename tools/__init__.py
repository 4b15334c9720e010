"""The house's own tools: licences, dependencies, pins, reference pages."""
