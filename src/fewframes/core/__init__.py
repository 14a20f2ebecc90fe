"""Settings, storage, the cache, devices, processes and files: what every wing needs.

Knows nothing of videos or models; imports no other wing.
"""
