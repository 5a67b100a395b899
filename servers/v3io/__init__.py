"""A test tool: a server that answers the calls of V3IO's web API that this project and V3IO's public clients make.

It is not a store: it keeps everything in memory and in a journal, for one process and for tests. See README.md.
"""
