"""The library behind the functions: one file per box of the picture."""
