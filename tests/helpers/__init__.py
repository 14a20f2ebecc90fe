"""What tests share: small networks and videos, commands, and requests."""
