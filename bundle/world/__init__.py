"""A small invented world, written as text whose every truth is known to the code that wrote it."""
