"""Real engines with a small model, for tests and measurements: vLLM and SGLang, on a CPU or a GPU.

`make engines-install` makes what they need under the user's cache folder (places.py); nothing of them enters
the project's own environment, and importing this package needs none of it.
"""
