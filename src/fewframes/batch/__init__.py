"""Many videos, many processes, many machines. Ray takes the extra `ray`."""
