"""A store with a million turns in it: what they take, how long a turn waits, and what it moves."""
