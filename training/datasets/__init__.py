"""Datasets: stored dialogues, or an uploaded file, as what LLaMA-Factory can read without dropping a line.

Everything that LLaMA-Factory would drop in silence, take for a control token or die of is refused or mended
here, by record and reason, before a GPU is touched.
"""
