"""What one package's imports and calls mean on another's sources."""
