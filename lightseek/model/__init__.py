"""DeepSeek-OCR, one file a box.

pixels -> sam -> compressor -> clip -> (encoder: concat) -> projector -> layout -> decoder (attention, moe) -> logits

`ocr.py` joins them; its forward fits on a screen. Start there.
"""
