"""What a gateway costs per request, measured beside the routers people would pick instead."""
