"""What the runtime needs from the outside world, as protocols with their guarantees written down."""
