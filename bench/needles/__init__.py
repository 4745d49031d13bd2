"""Dialogues with a fact planted in them, and the question that needs it. See `generator`."""
