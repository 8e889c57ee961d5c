"""What computes: devices, the step, the optimizer."""
