"""Models as transformers loads them: their own forward, found structure, a check at load."""
