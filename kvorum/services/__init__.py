"""Service discovery: who offers what, where, as keys below ``/services/`` that hang on leases.

    with client.services.register("web", "10.0.0.1:8080", tags=["v2"], zone="eu/1a"):
        ...                                              # on the list until here, or until we are no more

    client.services.resolve("web", zone="eu/1a")         # every instance, nearest first
    with client.services.balancer("web") as web:
        web.pick()                                       # one of them, from memory

The modules: what stands in the store (``records``), which instance is chosen (``choice``), what is known of
all services (``directory``), and the plans that ask (``asking``) and register (``registering``).
docs/services.md is for users.

Nobody is told that a service is not well but by its leaving the list: who registers one sees to that, as
``kvorum service register --check`` does.
"""
