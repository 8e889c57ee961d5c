"""The machines: TPUs and their API, the other workers, hosts that are lost, versions."""
