"""Files with which a gate is run: as a service, in a container, in a cluster, and behind a proxy."""
