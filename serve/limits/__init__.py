"""How much a tenant and a key may do, over all gateways."""
