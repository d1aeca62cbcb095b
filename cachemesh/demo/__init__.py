"""`cachemesh demo`: concurrent clients read a slow, flaky HTTP origin through the cache.

Nothing is simulated: sockets, threads, time and the HTTP client are real. One
noun a file: the `catalog` of records that the `origin` serves, the `plan` of
what goes wrong there, the `tally` of what it saw, the HTTP `client`, the
`traffic` and its `score`, the `report`, and `run`, which puts them together.
"""
