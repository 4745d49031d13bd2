"""How a trained version reaches users: a stable alias before versions, changed step by step."""
