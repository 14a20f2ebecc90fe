"""Answer over HTTP, with a web page to try it. Needs the extra `serve`."""
