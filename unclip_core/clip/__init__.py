"""CLIP behind one adapter contract: text and image encoders, tokenizer, image preprocessing."""
