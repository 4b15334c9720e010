"""The program that ships inside a dossier."""
