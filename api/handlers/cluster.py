"""etcdserverpb.Cluster: the members, and changes of them."""

from __future__ import annotations

from api.schema import requests
from api.schema.responses import Encoder
from api.service import Service


async def member_list(service: Service, encoder: Encoder, body: bytes) -> bytes:
    linearizable = requests.decode_member_list(body)
    members = await service.member_list(linearizable=linearizable)
    return encoder.members(members, service.raft_term)


async def member_add(service: Service, encoder: Encoder, body: bytes) -> bytes:
    request = requests.decode_member_add(body)
    member, members = await service.member_add(request.peer_urls, is_learner=request.is_learner)
    return encoder.member_add(member, members, service.raft_term)


async def member_remove(service: Service, encoder: Encoder, body: bytes) -> bytes:
    members = await service.member_remove(requests.decode_member_id(body))
    return encoder.members(members, service.raft_term)


async def member_update(service: Service, encoder: Encoder, body: bytes) -> bytes:
    request = requests.decode_member_update(body)
    members = await service.member_update(request.id, request.peer_urls)
    return encoder.members(members, service.raft_term)


async def member_promote(service: Service, encoder: Encoder, body: bytes) -> bytes:
    members = await service.member_promote(requests.decode_member_id(body))
    return encoder.members(members, service.raft_term)


UNARY = {
    "/v3/cluster/member/list": member_list,
    "/v3/cluster/member/add": member_add,
    "/v3/cluster/member/remove": member_remove,
    "/v3/cluster/member/update": member_update,
    "/v3/cluster/member/promote": member_promote,
}
