"""WebSocket origins: `source.py` is the face, `link.py` decides when a connection is made again."""
