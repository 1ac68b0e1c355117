"""etcdserverpb.Cluster: the list of members."""

from __future__ import annotations

from api.schema import requests
from api.schema.responses import Encoder
from api.service import Service


async def member_list(service: Service, encoder: Encoder, body: bytes) -> bytes:
    linearizable = requests.decode_member_list(body)
    members = await service.member_list(linearizable=linearizable)
    return encoder.member_list(members, service.raft_term)


UNARY = {"/v3/cluster/member/list": member_list}
