"""Tools that every other folder may use: files, devices, memory, the console. They have nothing to do with OCR."""
