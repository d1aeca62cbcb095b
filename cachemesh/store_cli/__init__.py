"""`cachemesh store`: looks into a store from outside."""
