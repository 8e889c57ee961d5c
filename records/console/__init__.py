"""What a person sees and types: options, streams, bars, interrupts."""
