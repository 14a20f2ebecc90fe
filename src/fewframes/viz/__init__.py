"""Pictures and pages of results. Figures take plain values; no page runs a network."""
