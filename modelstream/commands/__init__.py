"""The commands of `pipeline.py`, one file each, with the options, the help with an example, and what is printed.

The work itself is done in `runner`, `http`, `replay`, `training`, `registry` and `cluster`. Beside the commands are
`options` (those of several commands), `endings` (exit statuses, errors in words), `view` (a data folder to look at),
`output` (text for people) and `formats` (files for programs). Only `pipeline.py` imports them, for every help: what
takes long to import is imported inside functions.
"""
