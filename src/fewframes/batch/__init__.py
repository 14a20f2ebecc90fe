"""The batch wing: many videos, many processes, many machines. Ray needs the extra `ray`."""
