"""JSON ⇄ requests and responses, as etcd 3.5's gateway does it. Pure.

``requests`` decodes, ``responses`` encodes, ``go_json`` finds etcd's own words for JSON that is
broken. What is accepted is a superset: where API.md 1.5 lets newer gateways take more (URL-safe
and unpadded base64, integers written ``1e3``), it is taken here too.
"""
