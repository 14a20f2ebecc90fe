"""Settings, storage, the cache, devices, processes and files, which every wing needs.

This wing knows nothing of videos or models, and imports no other wing.
"""
