"""What the experiments say together: each layer by all measures, phases, heads with a role."""
