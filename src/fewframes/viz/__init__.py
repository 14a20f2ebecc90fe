"""The viz wing: pictures and pages of results. Its functions take plain values; none of them runs a network."""
