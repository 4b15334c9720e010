"""Marks in answers: secret noise for each client, so that a student names the account that it was trained with."""
