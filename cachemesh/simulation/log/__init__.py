"""The log of a cache's commands: written by a `Recorder`, read, and folded again by the reducer."""
