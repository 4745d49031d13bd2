"""The figures of docs/answers.md: run, kept as data under docs/figures, drawn from it."""
