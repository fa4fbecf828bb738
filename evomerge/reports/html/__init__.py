"""The HTML report of a run: one file that needs neither server nor network. All text is escaped."""
