"""Training: remembered dialogues become a dataset, a job, an adapter, and the adapter reaches the nodes.

Importing this package opens nothing and imports nothing heavy; funboost belongs to the worker alone.
"""
