"""Whether a trained version may be offered to users: measured by a probe, decided by a rule."""
