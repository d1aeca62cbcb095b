"""HTTP origins: `source.py` and `sync_source.py` are the faces; what decides is in the other files, and does no I/O."""
