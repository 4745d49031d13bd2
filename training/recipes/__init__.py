"""How to train: typed recipes, and what LLaMA-Factory is started with.

yaml_lines      text of YAML to values and back, as LLaMA-Factory's own reader understands it
model_settings, run_settings
                LLaMA-Factory 0.9.5's settings that a recipe may have, each with its type
keys            names: unknown, old and reserved ones
recipe          the recipe as a fact, and reading one
checks          what would fail or do harm, said before a GPU is touched
batches         a job's hyperparameters over a recipe; batches and steps
rendering       recipe + job + dataset + machine = YAML, files, environment, command
shape, memory   how much of a GPU it takes
old_command, translation
                an invocation of old to a recipe
shelf           the only file here that reads a disk: recipes by name
"""
