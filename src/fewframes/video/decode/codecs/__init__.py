"""The codecs of which the first bytes of a packet say what its pictures build on."""
