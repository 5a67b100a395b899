"""The commands of `pipeline.py`, one file each: its options, its help with an example, and what it prints.

What a command does stands where it belongs: in `runner`, `http`, `replay`, `training`, `registry` or `cluster`. Beside
the commands are `options` (those of several commands), `endings` (exit statuses, errors in words), `view` (a data
folder to look at), `output` (text for people) and `formats` (files for programs). Only `pipeline.py` imports them, for
every help: what takes long to import is imported inside functions.
"""
