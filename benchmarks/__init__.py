"""`python -m benchmarks`: cachemesh against its floors and its peers, measured in one run."""
