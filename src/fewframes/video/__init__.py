"""Files, streams and cameras -> frames at timestamps, as uint8 pixels. Imports `core` alone."""
