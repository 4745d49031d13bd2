"""`friendo advise`: which window fits a traffic. Where dialogues come from, what nodes are asked, the report.

What is computed of it is pure and lies in `history`: economics, replay, traffic, advice, likelihood.
"""
