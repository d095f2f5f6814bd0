"""scripts/wild: libraries' own models, run alone and under us."""
