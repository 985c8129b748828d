"""The notebooks of a course on DeepSeek-OCR, their exercises, and what builds them: `python -m notebooks.build`."""
