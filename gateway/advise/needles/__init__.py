"""Needles: facts said once in small talk, and questions about them later, from templates and a seed."""
