"""A small authoritative DNS server for registered services.

    dig @127.0.0.1 -p 5353 web.service.kvorum SRV

What is said about a name (``answers``), how that becomes a message (``wire``), and the sockets (``server``).
It answers from memory, never recurses, and knows one domain. docs/services.md lists the names.

Not there: zone transfer, DNSSEC, PTR, dynamic updates.
"""
