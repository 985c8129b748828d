"""Brings a document in front of the decoder: as drawn pages, as encoded pages, or as its text."""
