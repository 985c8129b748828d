"""A document becomes pages, and a page becomes the square views that the encoder sees."""
