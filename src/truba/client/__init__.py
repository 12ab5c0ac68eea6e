"""The remote side: clients and handler services in other processes, over the wire protocol."""
