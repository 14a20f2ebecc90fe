"""A real RTSP server: that of GStreamer, in the Python of the system, because its bindings come with the system's packages."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PYTHON = "/usr/bin/python3"
SCRIPT = """
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer

Gst.init(None)
if any(Gst.ElementFactory.find(name) is None for name in ("videotestsrc", "jpegenc", "rtpjpegpay")):
    sys.exit("an element is missing")
if len(sys.argv) > 1:
    port, user, password = sys.argv[1:]
    server = GstRtspServer.RTSPServer.new()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory.new()
    caps = "video/x-raw,format=I420,width=160,height=64,framerate=25/1"
    source = f"videotestsrc is-live=true pattern=ball ! {caps}"
    factory.set_launch(f"( {source} ! jpegenc ! rtpjpegpay name=pay0 pt=26 )")
    if user:
        auth = GstRtspServer.RTSPAuth.new()
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        token = GstRtspServer.RTSPToken.new()
        token.set_string("media.factory.role", "viewer")
        auth.add_digest(user, password, token)
        server.set_auth(auth)
        rights = "viewer, media.factory.access=(boolean)true, media.factory.construct=(boolean)true"
        factory.add_role_from_structure(Gst.Structure.new_from_string(rights))
    server.get_mount_points().add_factory("/live", factory)
    if not server.attach(None):
        sys.exit("the port is taken")
    print(server.get_bound_port(), flush=True)
    GLib.MainLoop().run()
"""


@functools.cache
def has_rtsp_server() -> bool:
    """Whether the server's packages are installed: gir1.2-gst-rtsp-server-1.0, gstreamer1.0-plugins-good, ... (.ci/run)"""
    if not Path(PYTHON).exists():
        return False
    return subprocess.run([PYTHON, "-c", SCRIPT], capture_output=True, check=False, timeout=60).returncode == 0


@contextmanager
def rtsp_server(*, port: int = 0, user: str = "", password: str = "") -> Iterator[int]:
    """Serve a moving ball, as a camera of 25 frames/s, on rtsp://127.0.0.1:PORT/live. The server is killed in the end."""
    process = subprocess.Popen([PYTHON, "-c", SCRIPT, str(port), user, password], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
