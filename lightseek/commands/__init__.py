"""The commands of `python -m lightseek`, one in each file: `add_parser(commands)` and a function that runs it."""
