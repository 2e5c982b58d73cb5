"""Prompts and passages: read from files or Python, turned into token ids with character spans.

Nothing here imports torch or transformers; a tokenizer is handed in by whoever loaded the model.
"""
