"""Small models whose answer is known, because somebody wrote their weights by hand."""
