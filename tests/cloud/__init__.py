"""Google Cloud on loopback: what the cloud tests talk to, at its real addresses.

Clients keep their real URLs. They are told of a proxy, by which every connection comes here, and of a certificate
authority, by which it is trusted; all else about them is as it is in production.
"""
