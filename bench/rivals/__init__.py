"""The same dialogues through this gateway and through the routers that people would pick instead."""
