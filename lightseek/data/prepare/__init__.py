"""Turns a data set into a folder that training reads."""
