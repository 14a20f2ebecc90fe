"""The search wing: an index of windows of many videos in LanceDB, and searches in it. It needs the extra `search`."""
