"""The composition root: files and options in, objects out. The only floor that knows all the others."""
