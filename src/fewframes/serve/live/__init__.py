"""The live room: a page that shows the sources of a stream and its events, and takes marks of events."""
