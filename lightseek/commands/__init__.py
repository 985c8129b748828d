"""The commands of `python -m lightseek`, one file each: `add_parser(commands)` and what it runs."""
