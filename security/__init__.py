"""The gate: who may spend the operator's key, and how often. Read `gate` first."""
