"""The seam to the models: one protocol, several backends, contract v1 of the fan-out service."""
