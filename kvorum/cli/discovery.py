"""Endpoints from DNS, as etcdctl finds them: SRV records of _etcd-client-ssl._tcp and _etcd-client._tcp.

``kvorum dns`` answers such questions too, if the members are registered as a service ``etcd-client``.
"""

from __future__ import annotations

import sys

import dns.exception
import dns.resolver
from dns.rdtypes.IN.SRV import SRV

from kvorum.cli.settings import Failure

_SERVICES = (("etcd-client-ssl", "https"), ("etcd-client", "http"))


def endpoints(domain: str, name: str = "", *, insecure: bool = True) -> tuple[str, ...]:
    """Those of a domain, and of the cluster that is called ``name`` there; without ``insecure`` only those
    with TLS, the others are named on stderr. Raises Failure where both questions fail."""
    found, failures = [], []
    for service, scheme in _SERVICES:
        asked = f"_{service}{f'-{name}' if name else ''}._tcp.{domain}"
        try:
            records = [record for record in dns.resolver.resolve(asked, "SRV") if isinstance(record, SRV)]
        except dns.exception.DNSException as error:
            failures.append(f"{asked}: {' '.join(str(error).split())}")
            continue
        for record in sorted(records, key=lambda one: (one.priority, -one.weight)):
            found.append(f"{scheme}://{record.target.to_text(omit_final_dot=True)}:{record.port}")
    if len(failures) == len(_SERVICES):
        raise Failure(f"dns lookup errors: {' and '.join(failures)}")
    return tuple(one for one in found if insecure or _is_secure(one))


def _is_secure(endpoint: str) -> bool:
    if endpoint.startswith("https://"):
        return True
    print(f'ignoring discovered insecure endpoint "{endpoint}"', file=sys.stderr)
    return False
