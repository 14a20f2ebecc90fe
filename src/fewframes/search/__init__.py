"""An index of windows of many videos in LanceDB, and what is asked of it. Takes the extra `search`."""
