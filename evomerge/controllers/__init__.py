"""Controllers: ask and tell, one outside library per file."""
