"""What does not hold, as a sentence for a person."""


class DossierError(Exception):
    """Something of the dossier does not hold."""
