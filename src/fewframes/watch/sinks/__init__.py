"""Sinks: the places that events are delivered to."""
