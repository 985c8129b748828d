"""What every other folder may use: files, devices, memory, the console. It knows nothing of OCR."""
