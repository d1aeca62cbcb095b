"""Tokens: kept, refreshed once for all who ask, and taken away with their user. OAuth 2 needs the extra `auth`.

Names are imported when they are first asked for.
"""
