"""A stand-in for a vLLM, SGLang or llama.cpp server whose prefix cache is real.

It has no weights: answers come from a seed. Everything that a router is judged by is as on a real node:
block hashes, LRU eviction, the waiting queue, prefill and decode time, cached tokens in `usage`, metrics,
error envelopes, and the ways in which a node fails.
"""
