"""Saved results: what they promise, and how they lie on disk. Readable without torch."""
