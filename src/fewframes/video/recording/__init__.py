"""Keep the last packets of a live source, and cut clips out of them without decoding or encoding anything."""
