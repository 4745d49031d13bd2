"""The trainer's processes: kept by a program that outlives the worker, followed by their files."""
