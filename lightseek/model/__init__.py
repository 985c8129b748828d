"""DeepSeek-OCR, with one file for each box of the architecture figure.

pixels -> sam -> compressor -> clip -> (encoder: concat) -> projector -> layout -> decoder (attention, moe) -> logits

`ocr.py` joins them. Its `forward` fits on a screen: start there. You can skip the files that only make things fast:
`cpu.py` (half precision on CPUs), `grid_attention.py` (SAM's attention; `compiled_attention.py` is the same in C) and
`grouped.py` (experts on a GPU).
"""
