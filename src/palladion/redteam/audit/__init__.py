"""An audit: attacks run as stages against one subject, what they found, and whether the owner's bars hold."""
