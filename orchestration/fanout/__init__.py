"""The seam to the models: one protocol, several backends, contract v2 of the fan-out service."""
