"""The solutions of the exercises, one file for each notebook: `SOLUTIONS` maps an exercise's name to its answer."""
